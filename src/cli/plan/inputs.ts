/** What a plan is made of, from the command line and from files: model, cluster, layout, size of a step. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { nearestName, UsageError } from "../../base/index.ts";
import { type ModelConfig, modelConfigFromJson, presetConfig, presets } from "../../model/index.ts";
import type { Schedule } from "../../parallel/index.ts";
import {
  type Cluster,
  type ExpertLoads,
  namedCluster,
  parseCluster,
  type StepSize,
  type SweepSpace,
} from "../../planner/index.ts";

export interface PlanFlags {
  readonly model: string;
  readonly cluster: string;
  readonly layout?: string;
  readonly schedule?: Schedule;
  readonly precision?: "fp8" | "bf16";
  readonly batchRows: number;
  readonly rowLength?: number;
  readonly tokens: string;
  readonly sweep?: boolean;
  readonly serving?: boolean;
  readonly loads?: string;
  readonly html?: string;
  readonly json?: boolean;
}

/** A preset, a config.json, or a folder with one. */
export async function readModel(name: string): Promise<ModelConfig> {
  if (Object.hasOwn(presets, name)) return presetConfig(name);
  if (!isPath(name)) {
    const known = Object.keys(presets);
    throw new UsageError(`there is no model ${JSON.stringify(name)}`, {
      why: `the presets are ${known.join(", ")}`,
      fix: `use --model ${nearestName(name, known) ?? "v3-671b"}, or the path of a config.json`,
      fields: { model: name },
    });
  }
  const path = name.endsWith(".json") ? name : join(name, "config.json");
  return modelConfigFromJson(await readJson(path, "the model's config"), path);
}

/** A named cluster, or the path of a JSON file that describes one. */
export async function readCluster(name: string): Promise<Cluster> {
  if (!isPath(name)) return namedCluster(name);
  return parseCluster(await readJson(name, "the cluster"), name);
}

/** `[[...], ...]`, tokens by layer and expert, or a run's events.jsonl: the sum over its steps. */
export async function readLoads(path: string): Promise<ExpertLoads> {
  const what = "the experts' loads";
  const isRun = path.endsWith(".jsonl");
  const loads = isRun ? await loadsOfRun(path, what) : await readJson(path, what);
  const isLoads =
    Array.isArray(loads) &&
    loads.length > 0 &&
    loads.every(
      (layer) =>
        Array.isArray(layer) &&
        layer.length > 0 &&
        layer.every((count) => Number.isFinite(count) && count >= 0),
    );
  if (isLoads) return loads as number[][];
  throw new UsageError(`${path} holds no loads of experts`, {
    why: "loads are a JSON list of layers, each a list with the tokens of every expert",
    fix: "write for example [[120, 80, 95, 105], [90, 110, 100, 100]], or name a run's events.jsonl",
    fields: { path },
  });
}

async function loadsOfRun(path: string, what: string): Promise<number[][]> {
  const text = await readText(path, what);
  const sums = new Map<number, number[]>();
  // A run that is writing, or that died, may have left its last line without an end.
  for (const line of text.slice(0, text.lastIndexOf("\n") + 1).split("\n")) {
    if (!line.includes('"step.completed"')) continue;
    const { expertLoad = [] } = parseJson(line, path) as {
      expertLoad?: readonly { layer: number; counts: readonly number[] }[];
    };
    for (const { layer, counts } of expertLoad) {
      const sum = sums.get(layer) ?? counts.map(() => 0);
      sums.set(
        layer,
        sum.map((total, expert) => total + (counts[expert] ?? 0)),
      );
    }
  }
  return [...sums].sort(([a], [b]) => a - b).map(([, sum]) => sum);
}

const layoutKeys = { pp: "pp", dp: "dp", ep: "ep", rows: "microBatchRows" } as const;

/**
 * `pp=16,ep=64` as the settings that are fixed; what is not named is chosen.
 *
 * @throws {UsageError} for an unknown key, a key given twice, or a number that is none
 */
export function parseLayout(text: string | undefined, schedule: Schedule | undefined): SweepSpace {
  const found: Record<string, readonly [number]> = {};
  if (text !== undefined && text.trim() === "") {
    throw new UsageError("--layout names nothing", {
      why: "what is not named is chosen, and without --layout all of it is",
      fix: "leave --layout out, or write for example --layout pp=16,ep=64",
      fields: { layout: text },
    });
  }
  const refuse = (what: string, why: string): UsageError =>
    new UsageError(`--layout: ${what}`, {
      why,
      fix: "write for example --layout pp=16,ep=64, or with all of it pp=16,dp=128,ep=64,rows=1",
      fields: { layout: text },
    });
  for (const part of (text ?? "").split(",").filter((one) => one.trim() !== "")) {
    const [key = "", value = "", ...rest] = part.split("=").map((word) => word.trim());
    const name = Object.hasOwn(layoutKeys, key) ? layoutKeys[key as keyof typeof layoutKeys] : undefined;
    if (name === undefined) {
      const nearest = nearestName(key, Object.keys(layoutKeys));
      const hint = nearest === undefined ? "" : `; did you mean ${nearest}?`;
      const why = `its keys are pp (pipeline ranks), dp (data-parallel), ep (expert-parallel) and rows (of a micro-batch)${hint}`;
      throw refuse(`${JSON.stringify(key)} is no part of a layout`, why);
    }
    const number = Number(value);
    if (rest.length > 0 || value === "" || !Number.isSafeInteger(number) || number < 1) {
      throw refuse(
        `${JSON.stringify(part)} gives ${key} no whole number from 1 on`,
        "ranks and rows are counted",
      );
    }
    if (found[name] !== undefined) throw refuse(`${key} is given twice`, "only one of them can hold");
    found[name] = [number];
  }
  return { ...found, ...(schedule === undefined ? {} : { schedule: [schedule] }) };
}

/** Rows as long as V3's unless the model's context is shorter; FP8 where the device has it. */
export function stepSize(flags: PlanFlags, config: ModelConfig, cluster: Cluster): StepSize {
  return {
    batchRows: flags.batchRows,
    rowLength: flags.rowLength ?? Math.min(4096, config.maxPositionEmbeddings),
    precision: flags.precision ?? (cluster.device.fp8Flops === null ? "bf16" : "fp8"),
  };
}

function isPath(name: string): boolean {
  return /[/\\]|\.json$/.test(name) || name === "." || name === "..";
}

async function readJson(path: string, what: string): Promise<unknown> {
  return parseJson(await readText(path, what), path);
}

async function readText(path: string, what: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw new UsageError(`${path} cannot be read`, {
      why: `${what} would be in it: ${(error as Error).message}`,
      fix: "check the path; it is relative to the folder in which minke was started",
      fields: { path },
      cause: error,
    });
  }
}

function parseJson(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new UsageError(`${path} is not JSON`, {
      why: (error as Error).message,
      fix: "mend the file; a comma too many or a comment is enough to spoil it",
      fields: { path },
      cause: error,
    });
  }
}
