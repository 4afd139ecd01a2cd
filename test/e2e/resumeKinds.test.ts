/** Every way of training goes on with the bits of a run that was never stopped; so do runs of older versions. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type TrainOptions, trainModel } from "../../src/index.ts";
import { nativeIsMissing } from "../support/native.ts";
import { scratchFolder } from "../support/scratchFolder.ts";
import { fingerprint } from "../support/shortRun.ts";
import { sealAgain } from "../support/spoiltCheckpoint.ts";
import { writeTrainingText } from "../support/trainingText.ts";

const STEPS = 8;
const STOP = 3;

const kinds: readonly [string, readonly string[]][] = [
  [
    "Muon, averages, moments in bf16",
    ["optimizer.kind=muon", "optimizer.emaDecay=0.9", "optimizer.moments=bf16"],
  ],
  [
    "a growing batch, masked documents, recomputation",
    ["schedule.rampStart=0.25", "schedule.rampUntil=0.8", "data.maskDocuments=true", "recompute=selective"],
  ],
  ["a tree of gradients, f32", ["gradientShards=2", "schedule.rampStart=1", "precision=f32"]],
  ["FP8, moments in bf16", ["precision=fp8", "optimizer.moments=bf16"]],
  ["FP8 with Muon and recomputation", ["precision=fp8", "optimizer.kind=muon", "recompute=selective"]],
  ["dense layers alone, no MTP", ["model.firstKDenseReplace=2", "model.numNextnPredictLayers=0"]],
  ["two MTP modules", ["model.numNextnPredictLayers=2"]],
];

async function optionsFor(settings: readonly string[]): Promise<TrainOptions & { readonly run: string }> {
  const folder = await scratchFolder();
  const common = ["data.tokenizer=bytes", "batchRows=16", "microBatchRows=4", "evaluate.lastRows=4"];
  return {
    preset: "unit",
    data: [await writeTrainingText(folder, 100)],
    run: join(folder, "run"),
    steps: STEPS,
    threads: 2,
    set: [...common, ...settings],
  };
}

/** Trains to the stop, or to the end. */
async function train(options: TrainOptions, stop: number = Number.POSITIVE_INFINITY): Promise<void> {
  const controller = new AbortController();
  const run = trainModel({ ...options, signal: controller.signal });
  for await (const event of run)
    if (event.type === "step.completed" && event.step === stop) controller.abort();
  expect((await run.finished).isComplete).toBe(stop > STEPS);
}

const checkpoint = (run: string, step: number): string => join(run, "checkpoints", `step-${step}`);

async function readJson(path: string): Promise<Record<string, unknown>> {
  return JSON.parse(await readFile(path, "utf8")) as Record<string, unknown>;
}

async function lossesOf(run: string): Promise<readonly number[]> {
  const lines = (await readFile(join(run, "events.jsonl"), "utf8")).trim().split("\n");
  const events = lines.map((line) => JSON.parse(line) as { type: string; mainLoss: number });
  return events.filter(({ type }) => type === "step.completed").map(({ mainLoss }) => mainLoss);
}

/** Weights, moments, averages and where the loop stands. */
async function lastState(run: string): Promise<unknown> {
  const { loop } = await readJson(join(checkpoint(run, STEPS), "state.json"));
  return { loop, ...(await fingerprint(run, STEPS)) };
}

describe.skipIf(nativeIsMissing)("a run that is stopped and resumed ends with the same bits", () => {
  test.each(kinds)("%s", async (_, settings) => {
    const [whole, parts] = [await optionsFor(settings), await optionsFor(settings)];
    await train({ ...whole });
    await train({ ...parts }, STOP);
    await train({ run: parts.run, resume: true, threads: 1 });
    expect(await lastState(parts.run)).toEqual(await lastState(whole.run));
  });

  test("though an older version began it, which knew neither Muon, recomputation nor the guard's new count", async () => {
    const [whole, parts] = [await optionsFor([]), await optionsFor(["evaluate.lastRows=null"])];
    await train({ ...whole, set: [...whole.set!, "evaluate.lastRows=null"] });
    await train({ ...parts }, STOP);
    const runJson = join(parts.run, "run.json");
    const manifest = await readJson(runJson);
    const config = manifest["config"] as Record<string, Record<string, unknown>>;
    delete config["recompute"];
    for (const key of ["kind", "momentum"]) delete config["optimizer"]![key];
    delete config["evaluate"]!["lastRows"];
    await writeFile(runJson, JSON.stringify(manifest));
    const stateJson = join(checkpoint(parts.run, STOP), "state.json");
    const state = (await readJson(stateJson)) as { loop: { guard: Record<string, unknown> } };
    delete state.loop.guard["gradientSpikesInARow"];
    await writeFile(stateJson, JSON.stringify(state));
    await sealAgain(checkpoint(parts.run, STOP));
    await train({ run: parts.run, resume: true });
    expect(await lastState(parts.run)).toEqual(await lastState(whole.run));
  });

  test("but not with another optimizer: that is refused, and the run is left as it was", async () => {
    const options = await optionsFor([]);
    await train({ ...options }, STOP);
    const before = await readFile(join(options.run, "run.json"), "utf8");
    for (const set of ["optimizer.kind=muon", "optimizer.moments=bf16", "optimizer.emaDecay=0.9"]) {
      const run = trainModel({ run: options.run, resume: true, set: [set] });
      await expect(run.finished, set).rejects.toMatchObject({
        code: "ERR_CHECKPOINT",
        fix: expect.stringContaining("run.json"),
      });
    }
    expect(await readFile(join(options.run, "run.json"), "utf8")).toBe(before);
  });

  test.each([
    ["bf16", "fp8"],
    ["fp8", "bf16"],
  ] as const)("and a run in %s in %s, if that is asked for: the masters are the same", async (from, to) => {
    const [once, twice, stayed] = [await optionsFor([]), await optionsFor([]), await optionsFor([])];
    for (const { run, ...options } of [once, twice]) {
      await train({ ...options, run, precision: from }, STOP);
      const change = { run, resume: true, precision: to } as const;
      if (run === once.run) await train(change);
      else {
        await train(change, STOP + 2);
        await train({ run, resume: true });
      }
    }
    expect(await lastState(twice.run)).toEqual(await lastState(once.run));
    await train({ ...stayed, precision: from });
    const [changed, same] = [await lossesOf(once.run), await lossesOf(stayed.run)];
    expect(changed.slice(0, STOP)).toEqual(same.slice(0, STOP));
    expect(changed[STOP]).not.toBe(same[STOP]);
    expect(Math.abs(changed[STOP]! / same[STOP]! - 1)).toBeLessThan(0.01);
    expect(await readJson(join(once.run, "run.json"))).toMatchObject({ config: { precision: to } });
    expect(await readFile(join(once.run, "report.html"), "utf8")).toMatch(
      new RegExp(`precision</t[hd]><td><code>${to}</code>`),
    );
  });

  test.each(["bf16", "f32"] as const)(
    "but not from %s across to or from f32: weights are stored apart there",
    async (from) => {
      const options = await optionsFor([]);
      await train({ ...options, precision: from }, STOP);
      const to = from === "f32" ? "bf16" : "f32";
      await expect(trainModel({ run: options.run, resume: true, precision: to }).finished).rejects.toThrow(
        `a run in ${from} cannot go on in ${to}`,
      );
    },
  );

  test("and a state without the loop's position is refused by name, not read as nothing", async () => {
    const options = await optionsFor([]);
    await train({ ...options }, STOP);
    const path = join(checkpoint(options.run, STOP), "state.json");
    const { loop: _, ...rest } = await readJson(path);
    await writeFile(path, JSON.stringify(rest));
    await sealAgain(checkpoint(options.run, STOP));
    await expect(trainModel({ run: options.run, resume: true }).finished).rejects.toThrow(
      /state\.json: loop is not what a run stores/,
    );
  });
});
