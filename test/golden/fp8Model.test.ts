/**
 * FP8 weights against PyTorch: the same codes, scales and numbers to the byte, and logits as transformers computes them
 * from the dequantised weights. (That model in f32 and f64, layer by layer, is one of the variants of model.test.ts.)
 */
import { createHash } from "node:crypto";
import { cpSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import {
  convertCheckpoint,
  readModel,
  readModelConfig,
  type WeightFormat,
} from "../../src/checkpoint/index.ts";
import {
  fp8Precision,
  ParameterFactory,
  type Precision,
  precisions,
  Transformer,
} from "../../src/model/index.ts";
import { reportRecipe } from "../../src/tensor/index.ts";
import { loadGoldenModel, readAll, readGoldens } from "../support/goldenModel.ts";
import { makeOracleDevice } from "../support/gradient.ts";
import { makeNativeDevice, nativeIsMissing } from "../support/native.ts";
import { scratchFolder } from "../support/scratchFolder.ts";
import { readTensors } from "../support/spoiltCheckpoint.ts";
import { distance } from "../support/tolerance.ts";

const golden = "test/golden/b00-fp8";
const manifest = JSON.parse(readFileSync(join(golden, "manifest.json"), "utf8")) as {
  readonly sha256: Readonly<Record<string, Readonly<Record<string, string>>>>;
};

/** PyTorch's checkpoint alone, without what was computed with it. */
async function pytorchFp8(): Promise<string> {
  const folder = await scratchFolder();
  const isPart = (path: string): boolean => !/goldens|manifest|provenance/.test(path);
  cpSync(golden, folder, { recursive: true, filter: isPart });
  return folder;
}

async function convertedHashes(
  from: string,
  options: { format: WeightFormat; powerOfTwo?: boolean },
): Promise<{ readonly folder: string; readonly hashes: ReadonlyMap<string, string> }> {
  const folder = join(await scratchFolder(), "converted");
  await convertCheckpoint(from, folder, options);
  const tensors = await readTensors(join(folder, "model.safetensors"));
  const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
  return { folder, hashes: new Map([...tensors].map(([name, { bytes }]) => [name, sha256(bytes)])) };
}

describe("conversion", () => {
  test.each([
    ["fp8", { format: "fp8" }, undefined],
    ["fp8_power_of_two", { format: "fp8", powerOfTwo: true }, "ue8m0"],
  ] as const)(
    "from BF16 gives PyTorch's codes and scales (%s): 192 rows, a block of zeros, an outlier",
    async (name, options, scaleFmt) => {
      const { folder, hashes } = await convertedHashes("test/golden/b00-bf16", options);
      const wanted = manifest.sha256[name]!;
      expect(Object.keys(wanted).length).toBe(56);
      expect(Object.fromEntries(Object.keys(wanted).map((key) => [key, hashes.get(key)]))).toEqual(wanted);
      expect((await readModelConfig(folder)).quantizationConfig?.scaleFmt).toBe(scaleFmt);
    },
  );

  test.each([
    ["dequantised_f32", "f32"],
    ["dequantised_bf16", "bf16"],
  ] as const)("from FP8, scales in another shard, gives PyTorch's numbers (%s)", async (name, format) => {
    const { folder, hashes } = await convertedHashes(await pytorchFp8(), { format });
    const wanted = manifest.sha256[name]!;
    expect(Object.keys(wanted).length).toBe(28);
    expect(Object.fromEntries(Object.keys(wanted).map((key) => [key, hashes.get(key)]))).toEqual(wanted);
    expect([...hashes.keys()].filter((key) => key.endsWith("_scale_inv"))).toEqual([]);
    expect((await readModelConfig(folder)).quantizationConfig).toBeNull();
  });

  test("from FP8 to FP8 copies PyTorch's codes and scales", async () => {
    const { hashes } = await convertedHashes(await pytorchFp8(), { format: "fp8" });
    const wanted = manifest.sha256["fp8"]!;
    expect(Object.fromEntries(Object.keys(wanted).map((key) => [key, hashes.get(key)]))).toEqual(wanted);
  });
});

describe("the model's logits", () => {
  const device = nativeIsMissing ? makeOracleDevice() : makeNativeDevice(undefined, 2).device;
  afterAll(() => device.dispose());

  async function logitsOf(precision: Precision): Promise<Float64Array> {
    const { config, batch, pass } = await loadGoldenModel(device, "b00-fp8", precision.name);
    const factory = new ParameterFactory(device, config, { precision, isTrained: false });
    const model = new Transformer(config, factory);
    await readModel(golden, factory);
    using _scope = device.scope();
    const own = { ...pass, precision };
    const { normed } = model.forward(batch.ids, own);
    return await readAll(model.logits(normed, own));
  }

  const goldens = readGoldens("b00-fp8", "goldens")!;
  const wanted = (name: string): Float64Array => Float64Array.from(goldens.get(name)!.values);

  test("err in bf16, as DeepSeek's own code runs FP8 weights by default, at most twice as much as transformers' do", async () => {
    const exact = wanted("bf16_weights.logits");
    const theirs = distance(wanted("bf16.logits"), exact).frobenius;
    const ours = distance(await logitsOf(precisions.bf16), exact).frobenius;
    expect(theirs).toBeGreaterThan(1e-3);
    expect(ours).toBeLessThan(2 * theirs);
    expect(ours).toBeGreaterThan(0);
  });

  test("with inputs in FP8 too are those that PyTorch gets from the same roundings", async () => {
    // Plain scales, and nothing rounded to bf16 between the projections, as the script has it.
    const recipe = fp8Precision({ ...reportRecipe, powerOfTwo: "none" });
    const ours = await logitsOf({ ...recipe, activation: "f32" });
    expect(distance(ours, wanted("fp8_inputs.logits")).frobenius).toBeLessThan(1e-2);
    // Six times as far are the logits of inputs that were not rounded: it is these roundings that are held.
    expect(distance(ours, wanted("logits")).frobenius).toBeGreaterThan(5e-2);
  });
});
