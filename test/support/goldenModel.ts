/** A tiny DeepSeek-V3 that transformers ran, loaded into ours through the product's own reader. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { diskTensors, readModel, readModelConfig } from "../../src/checkpoint/index.ts";
import {
  type ModelConfig,
  makeRopeTable,
  ParameterFactory,
  type Pass,
  type PrecisionName,
  precisions,
  Transformer,
} from "../../src/model/index.ts";
import { add, copyInto, fill, type QueueDevice, Tape, type Tensor } from "../../src/tensor/index.ts";
import { type BatchTensors, planBatch } from "../../src/train/batch.ts";
import { buildLosses, type Losses, lossScales, seedLosses } from "../../src/train/losses.ts";
import { type GoldenTensor, readSafetensors } from "./safetensors.ts";
import { uploadBatch } from "./uploadBatch.ts";

export type Goldens = ReadonlyMap<string, GoldenTensor>;

export interface GoldenModel {
  readonly device: QueueDevice;
  readonly config: ModelConfig;
  readonly factory: ParameterFactory;
  readonly model: Transformer;
  readonly batch: BatchTensors;
  readonly pass: Pass;
  readonly goldens: Goldens;
  readonly counts: { readonly main: number; readonly mtp: readonly number[] };
}

export function readGoldens(variant: string, file: string): Goldens | null {
  const path = join("test/golden", variant, `${file}.safetensors`);
  return existsSync(path) ? readSafetensors(readFileSync(path)) : null;
}

export function readScalars(variant: string): Record<string, number> {
  // Python writes Infinity, which JSON does not know: a dense model has no router and no margin.
  const text = readFileSync(join("test/golden", variant, "manifest.json"), "utf8").replaceAll(
    ": Infinity",
    ": null",
  );
  const manifest: unknown = JSON.parse(text);
  return (manifest as { scalars: Record<string, number> }).scalars;
}

export async function loadGoldenModel(
  device: QueueDevice,
  variant: string,
  precisionName: PrecisionName,
  mtpHidden: ModelConfig["mtpHidden"] = "post_norm",
): Promise<GoldenModel> {
  const folder = join("test/golden", variant);
  const config: ModelConfig = { ...(await readModelConfig(folder)), mtpHidden };
  const precision = precisions[precisionName];
  const factory = new ParameterFactory(device, config, { precision, isTrained: true });
  const model = new Transformer(config, factory);
  await readModel(folder, factory);
  const goldens = readGoldens(variant, "goldens")!;
  const { ids, targets } = { ids: goldens.get("input_ids")!, targets: goldens.get("targets")! };
  const [rows, T] = [ids.shape[0]!, ids.shape[1]!];
  const plan = planBatch(
    { tokens: rowsOf(ids, targets), count: rows, rowLength: T },
    { mtpDepth: model.mtp.length, padId: 0, documentEnd: null },
  );
  const main = Int32Array.from(targets.values, (target) => (target < 0 ? -1 : target));
  // What the reference ignores as a label, it ignores as a target of the MTP modules too.
  const labels = goldens.get("labels")!.values;
  const mtp = plan.mtp.map((module, k) => {
    const ahead = (at: number): number => ((at % T) + k + 2 < T ? labels[at + k + 2]! : -1);
    return {
      ids: module.ids,
      targets: Int32Array.from({ length: rows * T }, (_, at) => Math.max(-1, ahead(at))),
    };
  });
  const rope = makeRopeTable(device, config, 64, precisionName === "f64" ? "f64" : "f32");
  const batch = uploadBatch(device, {
    ...plan,
    targets: main,
    mtp: mtp.map((module) => ({ ...module, valid: 0 })),
  });
  const { positions, seqOffsets } = batch;
  return {
    device,
    config,
    factory,
    model,
    batch,
    goldens,
    pass: { positions, seqOffsets, rope, precision, cache: null, balanceAlpha: 1, dispatch: null },
    counts: {
      main: main.filter((target) => target >= 0).length,
      mtp: mtp.map((module) => module.targets.filter((target) => target >= 0).length),
    },
  };
}

/** Rows of T + 1 tokens: the inputs, and behind them the last label, which no input shows. */
function rowsOf(ids: GoldenTensor, targets: GoldenTensor): Int32Array {
  const [rows, T] = [ids.shape[0]!, ids.shape[1]!];
  const tokens = new Int32Array(rows * (T + 1)).fill(-1);
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < T; i++) tokens[r * (T + 1) + i] = ids.values[r * T + i]!;
    tokens[r * (T + 1) + T] = Math.max(-1, targets.values[r * T + T - 1]!);
  }
  return tokens;
}

/** Clears the gradients, builds the losses, and runs backward from the roots that `seed` chooses. */
export function backward(
  { device, factory, model, batch, pass, counts }: GoldenModel,
  mtpWeight: number,
  seed: (tape: Tape, losses: Losses) => void = (tape, losses) =>
    seedLosses(tape, {
      ...losses,
      reports: losses.reports.map((report) => ({ ...report, balanceLoss: null })),
    }),
): Losses {
  for (const { grad } of [...factory.parameters, ...factory.tied.map(({ alias }) => alias)]) fill(grad!, 0);
  using tape = new Tape(device);
  const scales = lossScales({ mainCount: counts.main, mtpCounts: counts.mtp, mtpWeight });
  const losses = device.withTape(tape, () => buildLosses(model, batch, pass, scales));
  seed(tape, losses);
  tape.backward();
  for (const { owner, alias } of factory.tied) copyInto(add(owner.grad!, alias.grad!), owner.grad!);
  return losses;
}

export async function readAll(tensor: Tensor): Promise<Float64Array> {
  return Float64Array.from(await tensor.read());
}

/** Gradients, or weights, under the names of the files. */
export async function byDiskName(
  { factory }: GoldenModel,
  of: (path: string) => Tensor | null,
): Promise<Map<string, Float64Array>> {
  const result = new Map<string, Float64Array>();
  for (const { name, path, start, shape, isCopy } of diskTensors(factory)) {
    const tensor = of(path);
    if (isCopy || tensor === null) continue;
    const values = await readAll(tensor);
    result.set(name, values.subarray(start, start + shape.reduce((a, b) => a * b, 1)));
  }
  return result;
}

export function gradOf({ factory }: GoldenModel, path: string): Tensor | null {
  return factory.parameters.find((parameter) => parameter.path === path)?.grad ?? null;
}
