/**
 * A checkpoint that Minke writes in FP8, against transformers: the file is made here anew and must be the one, to the
 * byte, that a plain PyTorch script dequantised for transformers; then the logits of both are compared.
 *
 * (The other way round, PyTorch's FP8 file in Minke, is fp8Model.test.ts.)
 */
import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readModel, readModelConfig, writeModel } from "../../src/checkpoint/index.ts";
import {
  fp8Precision,
  makeRopeTable,
  ParameterFactory,
  type Precision,
  precisions,
  Transformer,
} from "../../src/model/index.ts";
import { type QueueDevice, reportRecipe, type Tensor } from "../../src/tensor/index.ts";
import { makeFp8CheckpointModel, writeFp8Checkpoint } from "../support/fp8Checkpoint.ts";
import { readAll, readGoldens } from "../support/goldenModel.ts";
import { makeOracleDevice } from "../support/gradient.ts";
import { makeNativeDevice, nativeIsMissing } from "../support/native.ts";
import { scratchFolder } from "../support/scratchFolder.ts";
import { readTensors } from "../support/spoiltCheckpoint.ts";
import { distance, worstElement } from "../support/tolerance.ts";

const variant = "b01-fp8-written";
const golden = join("test/golden", variant);
const goldens = readGoldens(variant, "goldens")!;
const inputIds = goldens.get("input_ids")!;
const wanted = (name: string): Float64Array => Float64Array.from(goldens.get(name)!.values);

let folder = "";
let written: { readonly f32: string; readonly fp8: string };
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "minke-written-"));
  written = await writeFp8Checkpoint(folder);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
const readJson = async (path: string): Promise<unknown> => JSON.parse(await readFile(path, "utf8"));

describe("the file that transformers' logits come from", () => {
  interface Manifest {
    readonly sha256: {
      readonly "fp8/model.safetensors": string;
      readonly "f32/model.safetensors": string;
      readonly fp8: Readonly<Record<string, string>>;
    };
  }

  async function expectSameFile(checkpoint: string): Promise<void> {
    const file = join(checkpoint, "model.safetensors");
    const { sha256: hashes } = (await readJson(join(golden, "manifest.json"))) as Manifest;
    const tensors = await readTensors(file);
    // By tensor first: a difference has a name.
    expect(Object.fromEntries([...tensors].map(([name, { bytes }]) => [name, sha256(bytes)]))).toEqual(
      hashes.fp8,
    );
    expect(sha256(await readFile(file))).toBe(hashes["fp8/model.safetensors"]);
    expect(await readJson(join(checkpoint, "config.json"))).toEqual(
      await readJson(join(golden, "config.json")),
    );
  }

  test("is, to the byte, what a run in FP8 writes as its checkpoint", async () => {
    const device = makeOracleDevice();
    const run = await makeFp8CheckpointModel(device, "fp8");
    const checkpoint = await scratchFolder();
    await writeModel(checkpoint, run);
    await expectSameFile(checkpoint);
    await device.dispose();
  });

  test("is, to the byte, what a conversion makes of the f32 file, which transformers ran as well", async () => {
    await expectSameFile(written.fp8);
    const { sha256: hashes } = (await readJson(join(golden, "manifest.json"))) as Manifest;
    const f32 = await readFile(join(written.f32, "model.safetensors"));
    expect(sha256(f32)).toBe(hashes["f32/model.safetensors"]);
  });
});

/**
 * How far FP8 may be, in relative Frobenius: as far as rounding to E4M3 moves PyTorch's own logits of this model (the
 * inputs of the projections 6.3e-2, these and the weights 9.7e-2), and a quarter more.
 */
const fp8Tolerance = {
  inputs: 1.25 * distance(wanted("fp8_inputs.logits"), wanted("logits")).frobenius,
  both: 1.25 * distance(wanted("fp8_inputs.logits"), wanted("unquantised.logits")).frobenius,
};

/** Logits of the golden's tokens, after the experts were found to be the golden's. */
async function logitsOf(
  device: QueueDevice,
  checkpoint: string,
  precision: Precision,
): Promise<Float64Array> {
  const config = await readModelConfig(checkpoint);
  const factory = new ParameterFactory(device, config, { precision, isTrained: false });
  const model = new Transformer(config, factory);
  await readModel(checkpoint, factory);
  const [B, T] = [inputIds.shape[0]!, inputIds.shape[1]!];
  const upload = (length: number, at: (i: number) => number): Tensor =>
    device.from(
      Int32Array.from({ length }, (_, i) => at(i)),
      [length],
      "i32",
    );
  using _scope = device.scope();
  const pass = {
    positions: upload(B * T, (i) => i % T),
    seqOffsets: upload(B + 1, (b) => b * T),
    rope: makeRopeTable(device, config, T, precision.master === "f64" ? "f64" : "f32"),
    ...{ precision, cache: null, balanceAlpha: null, dispatch: null },
  };
  const { normed, reports } = model.forward(
    upload(B * T, (i) => inputIds.values[i]!),
    pass,
  );
  expect(reports.length).toBe(1);
  expect(Array.from(await reports[0]!.plan.expertIds.read())).toEqual(
    Array.from(wanted("layers.1.topk_idx")),
  );
  return await readAll(model.logits(normed, pass));
}

test("its logits in f64 are transformers', from the dequantised weights", async () => {
  const device = makeOracleDevice();
  const ours = await logitsOf(device, written.fp8, precisions.f64);
  expect(distance(ours, wanted("logits")).frobenius).toBeLessThanOrEqual(1e-6);
  await device.dispose();
});

const devices: { readonly name: string; readonly device: QueueDevice }[] = [
  { name: "reference", device: makeOracleDevice() },
];
if (!nativeIsMissing) devices.push({ name: "native", device: makeNativeDevice(undefined, 2).device });
afterAll(async () => {
  for (const { device } of devices) await device.dispose();
});

describe.each(devices)("its logits, $name", ({ device }) => {
  const apart = async (checkpoint: string, precision: Precision, from: string): Promise<number> =>
    distance(await logitsOf(device, checkpoint, precision), wanted(from)).frobenius;

  test("in f32 are transformers', from the dequantised weights", async () => {
    const ours = await logitsOf(device, written.fp8, precisions.f32);
    expect(distance(ours, wanted("logits")).frobenius).toBeLessThanOrEqual(1e-5);
    expect(worstElement(ours, wanted("logits"), { rtol: 1e-4, atol: 1e-5 })).toBeLessThanOrEqual(1);
  });

  test("before the weights went to FP8 are transformers', from the f32 file", async () => {
    expect(await apart(written.f32, precisions.f32, "unquantised.logits")).toBeLessThanOrEqual(1e-5);
  });

  test("in FP8 are transformers' within FP8's tolerance, of the dequantised and of the original weights", async () => {
    const ours = await logitsOf(device, written.fp8, precisions.fp8);
    const fromDequantised = distance(ours, wanted("logits")).frobenius;
    expect(fromDequantised).toBeLessThan(fp8Tolerance.inputs);
    expect(distance(ours, wanted("unquantised.logits")).frobenius).toBeLessThan(fp8Tolerance.both);
    // A pass that rounded its weights only would be as near as f32.
    expect(fromDequantised).toBeGreaterThan(fp8Tolerance.inputs / 2);
  });

  test("in FP8 with PyTorch's roundings are PyTorch's, tiles short at the edge too", async () => {
    // Plain scales, and nothing rounded to bf16 between the projections, as the script has it.
    const recipe = fp8Precision({ ...reportRecipe, powerOfTwo: "none" });
    const plain = { ...recipe, activation: "f32" } as const;
    expect(await apart(written.fp8, plain, "fp8_inputs.logits")).toBeLessThan(1e-2);
  });
});
