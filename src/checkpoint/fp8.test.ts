/** FP8 weights on the disk: what is written, what is read, and what is refused. */
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { makeOracleDevice } from "../../test/support/gradient.ts";
import { raggedConfig } from "../../test/support/raggedModel.ts";
import { scratchFolder } from "../../test/support/scratchFolder.ts";
import {
  changeTensors,
  type DiskContent,
  readTensors,
  writeTensors,
} from "../../test/support/spoiltCheckpoint.ts";
import { makeTinyModel, snapshot, type TinyModel } from "../../test/support/tinyModel.ts";
import { CheckpointError, NonFiniteError } from "../base/index.ts";
import { fp8Precision, ParameterFactory, Transformer } from "../model/index.ts";
import {
  bf16FromNumber,
  bf16ToNumber,
  dequantizeBlocks,
  quantizeBlocks,
  reportRecipe,
} from "../tensor/index.ts";
import { readModel, readModelConfig, writeModel } from "./model.ts";
import { diskTensors } from "./names.ts";

const device = makeOracleDevice();
const config = raggedConfig();
const made = makeTinyModel(device, config);
const DOWN = "model.layers.0.mlp.down_proj.weight"; // [144, 200]: two blocks by two, all but the first short
const SCALE = `${DOWN}_scale_inv`;

const empty = (): TinyModel => makeTinyModel(device, config, { seed: null });

/** Written once: quantising takes longer than all that is done to the copies. */
let original = "";
beforeAll(async () => {
  original = await mkdtemp(join(tmpdir(), "minke-test-"));
  await writeModel(original, made.factory, { format: "fp8" });
});
afterAll(() => rm(original, { recursive: true }));

async function written(): Promise<string> {
  const folder = await scratchFolder();
  await cp(original, folder, { recursive: true });
  return folder;
}

/** What was written, its tensors changed by `change`, and then read. */
async function readChanged(change: (tensors: Map<string, DiskContent>) => void): Promise<TinyModel> {
  const folder = await written();
  await changeTensors(join(folder, "model.safetensors"), change);
  const read = empty();
  await readModel(folder, read.factory);
  return read;
}

async function valuesOf(
  { factory }: TinyModel,
  path: string,
  start = 0,
  length?: number,
): Promise<Float32Array> {
  const holder =
    factory.parameters.find((parameter) => parameter.path === path)?.master ??
    factory.buffers.find((buffer) => buffer.path === path)!.value;
  const values = Float32Array.from(await holder.read());
  return values.subarray(start, length === undefined ? undefined : start + length);
}

const floats = (...values: number[]): Uint8Array => new Uint8Array(Float32Array.from(values).buffer);
const floatsOf = ({ bytes }: DiskContent): Float32Array => new Float32Array(bytes.slice().buffer);

describe("a model written in FP8", () => {
  test("has codes and scales of its linears, other matrices in BF16, and the rest as it was", async () => {
    const tensors = await readTensors(join(await written(), "model.safetensors"));
    let linears = 0;
    for (const { name, kind, path, shape, start, isCopy } of diskTensors(made.factory)) {
      const [N, K] = shape as [number, number];
      const values = await valuesOf(made, path, start, N * (K ?? 1));
      const { dtype, bytes } = tensors.get(name)!;
      if (kind === "linear") {
        linears++;
        const { codes, scales } = quantizeBlocks(values, N, K, name);
        expect({ name, dtype }).toEqual({ name, dtype: "F8_E4M3" });
        expect(Buffer.from(bytes).equals(codes), name).toBe(true);
        const scale = tensors.get(`${name}_scale_inv`)!;
        expect(scale).toMatchObject({ dtype: "F32", shape: [Math.ceil(N / 128), Math.ceil(K / 128)] });
        expect(floatsOf(scale)).toEqual(scales);
      } else {
        expect({ name, dtype }).toEqual({ name, dtype: kind === "exact" ? "F32" : "BF16" });
        expect(tensors.has(`${name}_scale_inv`), name).toBe(false);
        if (kind === "exact" && !isCopy) expect(floatsOf(tensors.get(name)!), name).toEqual(values);
      }
    }
    // 5 of attention, and gate, up, down: dense, or of one shared and four routed experts; MTP's layer is one more.
    expect(linears).toBe(5 + 3 + 2 * (5 + 3 + 4 * 3));
    expect(tensors.size).toBe(diskTensors(made.factory).length + linears);
  });

  test("says so in its config.json, as the released models do", async () => {
    const folder = await written();
    const { torchDtype, quantizationConfig } = await readModelConfig(folder);
    expect(torchDtype).toBe("bfloat16");
    expect(quantizationConfig).toEqual({
      ...{ quantMethod: "fp8", fmt: "e4m3", activationScheme: "dynamic" },
      weightBlockSize: [128, 128],
    });
    const json = JSON.parse(await readFile(join(folder, "config.json"), "utf8")) as Record<string, unknown>;
    expect(json["quantization_config"]).toEqual({
      ...{ quant_method: "fp8", fmt: "e4m3", activation_scheme: "dynamic" },
      weight_block_size: [128, 128],
    });
  });

  test("is read as the numbers that its codes stand for", async () => {
    const folder = await written();
    const read = empty();
    await readModel(folder, read.factory);
    for (const { name, kind, path, shape, start, isCopy } of diskTensors(made.factory)) {
      if (isCopy) continue;
      const [N, K] = shape as [number, number];
      const before = await valuesOf(made, path, start, N * (K ?? 1));
      const wanted =
        kind === "linear"
          ? dequantizeBlocks(quantizeBlocks(before, N, K, name), N, K)
          : kind === "matrix"
            ? before.map((x) => bf16ToNumber(bf16FromNumber(x)))
            : before;
      expect(await valuesOf(read, path, start, before.length), name).toEqual(wanted);
    }
  });

  test("keeps its codes when it is read and written again; scales move by one unit in the last place at most", async () => {
    const folder = await written();
    const read = empty();
    await readModel(folder, read.factory);
    const again = await scratchFolder();
    await writeModel(again, read.factory, { format: "fp8" });
    const [before, after] = [
      await readTensors(join(folder, "model.safetensors")),
      await readTensors(join(again, "model.safetensors")),
    ];
    expect([...after.keys()]).toEqual([...before.keys()]);
    for (const [name, { bytes, shape }] of before) {
      if (!name.endsWith("_scale_inv")) {
        expect(Buffer.from(bytes).equals(after.get(name)!.bytes), name).toBe(true);
        continue;
      }
      const bits = (tensor: Uint8Array): Int32Array => new Int32Array(tensor.slice().buffer);
      const apart = bits(bytes).map((bit, i) => Math.abs(bit - bits(after.get(name)!.bytes)[i]!));
      expect(Math.max(...apart), `${name} [${shape.join(", ")}]`).toBeLessThanOrEqual(1);
    }
  });

  test("loads as the codes that an FP8 run multiplied, where gate and up are whole blocks", async () => {
    const whole = raggedConfig({ intermediateSize: 256, moeIntermediateSize: 128 });
    const run = makeTinyModel(device, whole, { precision: "fp8" });
    const folder = await scratchFolder();
    await writeModel(folder, run.factory);
    expect((await readModelConfig(folder)).quantizationConfig?.quantMethod).toBe("fp8");
    const read = makeTinyModel(device, whole, { precision: "fp8", seed: null });
    await readModel(folder, read.factory);
    let compared = 0;
    for (const [i, { path, panels, scales }] of run.factory.parameters.entries()) {
      if (panels === null || scales === null) continue;
      compared++;
      const again = read.factory.parameters[i]!;
      expect(Buffer.from(await panels.readBytes()).equals(await again.panels!.readBytes()), path).toBe(true);
      const [before, after] = [await scales.read(), await again.scales!.read()];
      for (const [j, scale] of Array.from(before).entries())
        expect(Math.abs(after[j]! / scale - 1), path).toBeLessThanOrEqual(2 ** -23);
    }
    expect(compared).toBe(5 + 2 + 2 * (5 + 2 + 2));
  });

  test("has scales that are powers of two if the run's weights have them", async () => {
    const { factory } = made;
    const precision = fp8Precision({ ...reportRecipe, powerOfTwo: "all" });
    const powers = new ParameterFactory(device, config, { precision, isTrained: false });
    new Transformer(config, powers);
    for (const [i, { master }] of powers.parameters.entries())
      master.write(await factory.parameters[i]!.master.read());
    for (const [i, { value }] of powers.buffers.entries())
      value.write(await factory.buffers[i]!.value.read());
    const folder = await scratchFolder();
    await writeModel(folder, powers);
    expect((await readModelConfig(folder)).quantizationConfig?.scaleFmt).toBe("ue8m0");
    const scale = floatsOf((await readTensors(join(folder, "model.safetensors"))).get(SCALE)!);
    const weights = await valuesOf(made, "model.layers.0.mlp.downProj.weight");
    expect(scale).toEqual(quantizeBlocks(weights, 144, 200, DOWN, true).scales);
  });

  test("refuses a weight that is not a number, with its name, and leaves the caller to say which step it was", async () => {
    const broken = makeTinyModel(device, config);
    const parameter = broken.factory.parameters.find(({ path }) => path.endsWith("experts.downProj"))!;
    const values = Float32Array.from(await parameter.master.read());
    values[2 * 144 * 136 + 5] = Number.NaN;
    parameter.master.write(values);
    const writing = writeModel(await scratchFolder(), broken.factory, { format: "fp8" });
    await expect(writing).rejects.toThrow(NonFiniteError);
    await expect(writing).rejects.toThrow(/layers\.1\.mlp\.experts\.2\.down_proj\.weight holds NaN/);
  });
});

describe("FP8 weights of other writers", () => {
  test("may have their scales in another shard", async () => {
    const folder = await written();
    const tensors = await readTensors(join(folder, "model.safetensors"));
    const whole = empty();
    await readModel(folder, whole.factory);
    await rm(join(folder, "model.safetensors"));
    const isScale = (name: string): boolean => name.endsWith("_scale_inv");
    const map: Record<string, string> = {};
    for (const [file, wanted] of [
      ["codes.safetensors", false],
      ["scales.safetensors", true],
    ] as const) {
      const part = new Map([...tensors].filter(([name]) => isScale(name) === wanted));
      for (const name of part.keys()) map[name] = file;
      await writeTensors(join(folder, file), part);
    }
    await writeFile(join(folder, "model.safetensors.index.json"), JSON.stringify({ weight_map: map }));
    const read = empty();
    await readModel(folder, read.factory);
    expect(await snapshot(read.factory)).toEqual(await snapshot(whole.factory));
  });

  test.each(["F8_E8M0", "U8"] as const)("may store powers of two as exponents, in %s", async (dtype) => {
    const exponents = Uint8Array.of(120, 121, 117, 119);
    const plain = await readChanged((tensors) => {
      const found = tensors.get(SCALE)!;
      tensors.set(SCALE, { ...found, bytes: floats(...Array.from(exponents, (e) => 2 ** (e - 127))) });
    });
    const bytes = await readChanged((tensors) => {
      tensors.set(SCALE, { dtype, shape: [2, 2], bytes: exponents });
    });
    const path = "model.layers.0.mlp.downProj.weight";
    expect(await valuesOf(bytes, path)).toEqual(await valuesOf(plain, path));
  });

  test("may be any matrix that has scales: what is FP8 is told by dtype, not by name", async () => {
    const name = "model.layers.2.eh_proj.weight";
    const { codes, scales } = quantizeBlocks(
      await valuesOf(made, "model.layers.2.ehProj.weight"),
      144,
      288,
      name,
    );
    const read = await readChanged((tensors) => {
      tensors.set(name, { dtype: "F8_E4M3", shape: [144, 288], bytes: codes });
      const bytes = new Uint8Array(scales.buffer.slice(0)) as Uint8Array;
      tensors.set(`${name}_scale_inv`, { dtype: "F32", shape: [2, 3], bytes });
    });
    const wanted = dequantizeBlocks({ codes, scales }, 144, 288);
    expect(await valuesOf(read, "model.layers.2.ehProj.weight")).toEqual(wanted);
  });

  test("may lie beside a config.json that does not mention FP8", async () => {
    const folder = await written();
    const json = JSON.parse(await readFile(join(folder, "config.json"), "utf8")) as Record<string, unknown>;
    delete json["quantization_config"];
    await writeFile(join(folder, "config.json"), JSON.stringify(json));
    expect((await readModelConfig(folder)).quantizationConfig).toBeNull();
    await readModel(folder, empty().factory);
  });
});

describe("FP8 weights that would be read wrongly", () => {
  async function refusal(change: (tensors: Map<string, DiskContent>) => void): Promise<CheckpointError> {
    const outcome: unknown = await readChanged(change).catch((error: unknown) => error);
    expect(outcome).toBeInstanceOf(CheckpointError);
    return outcome as CheckpointError;
  }
  const withScale =
    (changes: Partial<DiskContent>) =>
    (tensors: Map<string, DiskContent>): void => {
      tensors.set(SCALE, { ...tensors.get(SCALE)!, ...changes });
    };

  test("are refused without their scales", async () => {
    const error = await refusal((tensors) => tensors.delete(SCALE));
    expect(error.message).toMatchInlineSnapshot(`
      "model.layers.0.mlp.down_proj.weight is F8_E4M3 without model.layers.0.mlp.down_proj.weight_scale_inv
        why: codes mean nothing without their scales, of shape [2, 2]
        fix: copy the whole folder again; the scale may lie in another shard than the weight"
    `);
    expect(error.fields).toEqual({ key: DOWN });
  });

  test("are refused where the scales have no codes: no weight, or one that is not FP8", async () => {
    expect((await refusal((tensors) => tensors.delete(DOWN))).what).toBe(`${SCALE} has no weight beside it`);
    const bytes = new Uint8Array(144 * 200 * 2);
    const error = await refusal((tensors) => tensors.set(DOWN, { dtype: "BF16", shape: [144, 200], bytes }));
    expect(error.what).toBe(`${SCALE} belongs to a weight that is BF16`);
  });

  test.each([
    [[1, 2], "is [1, 2], its weight wants [2, 2]"],
    [[2, 1], "is [2, 1], its weight wants [2, 2]"],
    [[2], "is [2], its weight wants [2, 2]"],
    [[3, 4], "is [3, 4], its weight wants [2, 2]"], // blocks of 64 x 64
    [[144, 2], "is [144, 2], its weight wants [2, 2]"], // one scale per row
  ])("are refused with scales of shape %j", async (shape, what) => {
    const bytes = floats(...new Array<number>(shape.reduce((a, b) => a * b, 1)).fill(0.01));
    const error = await refusal(withScale({ shape, bytes }));
    expect(error.what).toBe(`${SCALE} ${what}`);
    expect(error.why).toContain("[144, 200]");
  });

  test.each([Number.NaN, 0, -0, -0.01, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 1e37])(
    "are refused with a scale of %d",
    async (bad) => {
      for (let at = 0; at < 4; at++) {
        const scales = [1, 1, 1, 1];
        scales[at] = bad;
        const error = await refusal(withScale({ bytes: floats(...scales) }));
        expect(error.what).toBe(`${SCALE} is ${Math.fround(bad)} at [${at >> 1}, ${at & 1}]`);
      }
    },
  );

  test("are refused with the exponent that is NaN, and with scales of a dtype that is none for scales", async () => {
    const bytes = Uint8Array.of(120, 255, 120, 120);
    expect((await refusal(withScale({ dtype: "F8_E8M0", bytes }))).what).toBe(`${SCALE} is NaN at [0, 1]`);
    const halves = withScale({ dtype: "BF16", bytes: new Uint8Array(8).fill(0x3c) });
    expect((await refusal(halves)).what).toBe(`${SCALE} is BF16`);
  });

  test.each([0x7f, 0xff])("are refused with the code %i, which is NaN, wherever it stands", async (code) => {
    for (const [row, column] of [
      [0, 0],
      [127, 199],
      [143, 130],
    ] as const) {
      const error = await refusal((tensors) => {
        const found = tensors.get(DOWN)!;
        const bytes = found.bytes.slice();
        bytes[row * 200 + column] = code;
        tensors.set(DOWN, { ...found, bytes });
      });
      expect(error.what).toBe(`${DOWN} holds NaN at [${row}, ${column}]`);
    }
  });

  test("are refused as a vector, which has no blocks", async () => {
    const name = "model.norm.weight";
    const error = await refusal((tensors) => {
      tensors.set(name, { dtype: "F8_E4M3", shape: [144], bytes: new Uint8Array(144) });
      tensors.set(`${name}_scale_inv`, { dtype: "F32", shape: [2], bytes: floats(1, 1) });
    });
    expect(error.what).toBe(`${name} is F8_E4M3 of shape [144]`);
  });

  test("are refused before anything is loaded: a missing shard of scales is a missing shard", async () => {
    const folder = await written();
    const map = { [DOWN]: "model.safetensors", [SCALE]: "model-00002-of-00002.safetensors" };
    await writeFile(join(folder, "model.safetensors.index.json"), JSON.stringify({ weight_map: map }));
    const reading = readModel(folder, empty().factory);
    await expect(reading).rejects.toThrow(/has no model-00002-of-00002\.safetensors/);
  });
});
