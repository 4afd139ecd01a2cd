import { mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { makeOracleDevice } from "../../test/support/gradient.ts";
import { raggedConfig } from "../../test/support/raggedModel.ts";
import { scratchFolder } from "../../test/support/scratchFolder.ts";
import { newRun } from "../../test/support/smallCheckpoints.ts";
import { changeTensors, type DiskContent, readTensors } from "../../test/support/spoiltCheckpoint.ts";
import { makeTinyModel, snapshot, type TinyModel } from "../../test/support/tinyModel.ts";
import { CheckpointError, NonFiniteError, RunError } from "../base/index.ts";
import { type ConvertOptions, type ConvertProgress, convertCheckpoint } from "./convert.ts";
import type { WeightFormat } from "./format.ts";
import { readModel, readModelConfig, writeModel } from "./model.ts";
import { CheckpointStore } from "./store.ts";
import { WeightFiles } from "./weightFiles.ts";

const device = makeOracleDevice();

const tiny = makeTinyModel(device);
const ragged = makeTinyModel(device, raggedConfig());

async function modelIn(format: WeightFormat, { factory }: TinyModel = tiny): Promise<string> {
  const folder = join(await scratchFolder(), "model");
  await mkdir(folder);
  await writeModel(folder, factory, { format });
  return folder;
}

/** Where a conversion goes: beside its source, and not there yet. */
const beside = (from: string, name = "converted"): string => join(dirname(from), name);

async function converted(from: string, options: ConvertOptions, name?: string): Promise<string> {
  await convertCheckpoint(from, beside(from, name), options);
  return beside(from, name);
}

const tensorsOf = (folder: string): Promise<Map<string, DiskContent>> =>
  readTensors(join(folder, "model.safetensors"));

const jsonOf = async (folder: string): Promise<Record<string, unknown>> =>
  JSON.parse(await readFile(join(folder, "config.json"), "utf8")) as Record<string, unknown>;

describe("a converted model", () => {
  test.each(["f32", "bf16", "fp8"] as const)(
    "is what the model itself would have been written as, from f32 to %s",
    async (format) => {
      const folder = await converted(await modelIn("f32", ragged), { format });
      expect(await tensorsOf(folder)).toEqual(await tensorsOf(await modelIn(format, ragged)));
      const wanted = await readModelConfig(await modelIn(format, ragged));
      expect(await readModelConfig(folder)).toEqual(wanted);
    },
  );

  test.each(["f32", "bf16"] as const)("from FP8 to %s loads as the FP8 model does", async (format) => {
    const from = await modelIn("fp8", ragged);
    const folder = await converted(from, { format });
    const [direct, through] = [from, folder].map(() => makeTinyModel(device, raggedConfig(), { seed: null }));
    await readModel(from, direct!.factory);
    await readModel(folder, through!.factory);
    if (format === "f32") expect(await snapshot(through!.factory)).toEqual(await snapshot(direct!.factory));
    for (const [i, { path, master }] of direct!.factory.parameters.entries()) {
      const [a, b] = [await master.read(), await through!.factory.parameters[i]!.master.read()];
      // To bf16 they are rounded once more: half of its last place.
      const isApart = (value: number, j: number): boolean =>
        Math.abs(value - b[j]!) > 2 ** -8 * Math.abs(value);
      expect(a.findIndex(isApart), path).toBe(-1);
    }
  });

  test("is a byte for byte copy where it has its form already", async () => {
    for (const format of ["f32", "bf16", "fp8"] as const) {
      const from = await modelIn(format);
      const done = await convertCheckpoint(from, beside(from), { format });
      expect(done).toMatchObject({ quantized: 0, dequantized: 0, rounded: 0, bytes: done.fromBytes });
      for (const name of await readdir(from))
        expect(await readFile(join(beside(from), name)), name).toEqual(await readFile(join(from, name)));
    }
  });

  test("counts what was done to its weights", async () => {
    const from = await modelIn("bf16");
    const done = await convertCheckpoint(from, beside(from), { format: "fp8" });
    const files = await WeightFiles.open(beside(from));
    const linears = [...files.weights.values()].filter(({ scale }) => scale !== null).length;
    await files.close();
    expect(done).toMatchObject({ quantized: linears, dequantized: 0, rounded: 0 });
    expect(done.copied).toBe(files.weights.size - linears);
    expect(done.tensors).toBe(files.weights.size + linears);
    expect(done.bytes).toBe(files.bytes);
    const back = await convertCheckpoint(beside(from), beside(from, "back"), { format: "bf16" });
    expect(back).toMatchObject({
      quantized: 0,
      dequantized: linears,
      copied: done.copied,
      fromBytes: done.bytes,
    });
    const wide = await convertCheckpoint(from, beside(from, "wide"), { format: "f32" });
    expect(wide).toMatchObject({ quantized: 0, dequantized: 0 });
    expect(wide.rounded).toBeGreaterThan(0);
  });

  test("is cut into shards as asked, and read as a whole one", async () => {
    const from = await modelIn("f32", ragged);
    const whole = await converted(from, { format: "fp8" });
    const cut = await converted(from, { format: "fp8", shardBytes: 100_000 }, "cut");
    expect((await readdir(cut)).filter((name) => name.endsWith(".safetensors")).length).toBeGreaterThan(5);
    const [a, b] = [whole, cut].map(() => makeTinyModel(device, raggedConfig(), { seed: null }));
    await readModel(whole, a!.factory);
    await readModel(cut, b!.factory);
    expect(await snapshot(b!.factory)).toEqual(await snapshot(a!.factory));
  });

  test("keeps routers and vectors in the precision in which they came", async () => {
    const from = await modelIn("f32");
    await changeTensors(join(from, "model.safetensors"), (tensors) => {
      tensors.set("model.norm.weight", { dtype: "BF16", shape: [16], bytes: new Uint8Array(32).fill(0x3f) });
    });
    const folder = await converted(from, { format: "fp8" });
    const tensors = await tensorsOf(folder);
    expect(tensors.get("model.norm.weight")?.dtype).toBe("BF16");
    expect(tensors.get("model.layers.1.mlp.gate.weight")?.dtype).toBe("F32");
    const wide = await tensorsOf(await converted(from, { format: "f32" }, "wide"));
    expect(new Set([...wide.values()].map(({ dtype }) => dtype))).toEqual(new Set(["F32"]));
  });
});

describe("scales that are powers of two", () => {
  const scalesOf = async (folder: string): Promise<number[]> =>
    [...(await tensorsOf(folder))].flatMap(([name, { bytes }]) =>
      name.endsWith("_scale_inv") ? [...new Float32Array(bytes.slice().buffer)] : [],
    );
  const isPower = (scale: number): boolean => Number.isInteger(Math.log2(scale));

  test("are made where asked for, said in config.json, and kept by the next conversion", async () => {
    const from = await modelIn("f32", ragged);
    const folder = await converted(from, { format: "fp8", powerOfTwo: true });
    const scales = await scalesOf(folder);
    expect(scales.length).toBeGreaterThan(100);
    expect(scales.filter((scale) => !isPower(scale))).toEqual([]);
    expect((await readModelConfig(folder)).quantizationConfig?.scaleFmt).toBe("ue8m0");
    const kept = await converted(folder, { format: "fp8" }, "kept");
    expect(await tensorsOf(kept)).toEqual(await tensorsOf(folder));
    expect((await readModelConfig(kept)).quantizationConfig?.scaleFmt).toBe("ue8m0");
  });

  test("are replaced by plain ones, and plain ones by them, where that is asked for", async () => {
    const from = await modelIn("fp8", ragged);
    expect((await scalesOf(from)).every(isPower)).toBe(false);
    const powers = await converted(from, { format: "fp8", powerOfTwo: true }, "powers");
    expect((await scalesOf(powers)).every(isPower)).toBe(true);
    const plain = await converted(powers, { format: "fp8", powerOfTwo: false }, "plain");
    expect((await scalesOf(plain)).every(isPower)).toBe(false);
    expect((await readModelConfig(plain)).quantizationConfig).not.toHaveProperty("scaleFmt");
  });
});

describe("what lies beside the weights", () => {
  test("is copied, links of model hubs too; other weights and a run's own state are not", async () => {
    const from = await modelIn("bf16");
    await writeFile(join(dirname(from), "blob"), "a tokenizer");
    await symlink(join(dirname(from), "blob"), join(from, "tokenizer.json"));
    for (const name of ["LICENSE", "modeling_deepseek.py", "state.json", "pytorch_model.bin", ".cache"])
      await writeFile(join(from, name), name);
    await writeFile(join(from, "optimizer.safetensors"), "moments");
    await mkdir(join(from, "onnx"));
    const folder = await converted(from, { format: "fp8" });
    expect((await readdir(folder)).sort()).toEqual([
      ...["LICENSE", "config.json", "generation_config.json"],
      ...["model.safetensors", "modeling_deepseek.py", "tokenizer.json"],
    ]);
    expect(await readFile(join(folder, "tokenizer.json"), "utf8")).toBe("a tokenizer");
  });

  test("config.json keeps every key, in either spelling of the dtype, but for what the form of the weights is", async () => {
    const from = await modelIn("bf16");
    const { torch_dtype: _, ...rest } = await jsonOf(from);
    await writeFile(
      join(from, "config.json"),
      JSON.stringify({ ...rest, dtype: "bfloat16", transformers_version: "5.18.0" }),
    );
    const wide = await jsonOf(await converted(from, { format: "f32" }));
    expect(wide).toEqual({ ...rest, dtype: "float32", transformers_version: "5.18.0" });
    const fp8 = await jsonOf(await converted(from, { format: "fp8" }, "fp8"));
    const { quantization_config: quantization, ...others } = fp8;
    expect(others).toEqual({ ...rest, dtype: "bfloat16", transformers_version: "5.18.0" });
    expect(quantization).toMatchObject({ quant_method: "fp8", weight_block_size: [128, 128] });
  });
});

describe("a conversion that cannot be done", () => {
  /** Nothing is left beside the source, half written or whole. */
  async function refused(from: string, options: Partial<ConvertOptions> = {}): Promise<unknown> {
    const error: unknown = await convertCheckpoint(from, beside(from), { format: "fp8", ...options }).then(
      () => "it was converted",
      (caught: unknown) => caught,
    );
    expect(await readdir(dirname(from))).toEqual(["model"]);
    return error;
  }

  test("gives way to a conversion into the same folder that was faster", async () => {
    const from = await modelIn("f32");
    const to = join(dirname(from), "out");
    const run = () => convertCheckpoint(from, to, { format: "fp8" });
    const outcomes = await Promise.allSettled([run(), run()]);
    const failed = outcomes.filter((outcome) => outcome.status === "rejected");
    expect(failed.map(({ reason }) => String(reason))).toEqual([
      expect.stringContaining(`${to} exists already`),
    ]);
    expect((await readdir(dirname(from))).sort()).toEqual(["model", "out"]);
  });

  test("replaces nothing: neither a folder with files, nor a file, nor its own source", async () => {
    const from = await modelIn("f32");
    for (const to of [from, join(from, "config.json")]) {
      const before = await readFile(join(from, "config.json"));
      const outcome = convertCheckpoint(from, to, { format: "fp8" });
      await expect(outcome).rejects.toThrow(RunError);
      await expect(outcome).rejects.toThrow(`${to} exists already`);
      expect(await readFile(join(from, "config.json"))).toEqual(before);
    }
    // An empty folder is nobody's.
    await mkdir(beside(from));
    await convertCheckpoint(from, beside(from), { format: "fp8" });
  });

  test("leaves nothing behind if a weight is NaN, or a code, or a scale", async () => {
    const name = "model.layers.1.mlp.experts.3.up_proj.weight";
    const nan = await modelIn("f32");
    await changeTensors(join(nan, "model.safetensors"), (tensors) => {
      tensors.get(name)!.bytes.set([0, 0, 0xc0, 0x7f], 8);
    });
    const error = await refused(nan);
    expect(error).toBeInstanceOf(NonFiniteError);
    expect(String(error)).toContain(name);
    for (const [key, bytes] of [
      [name, [0x7f]],
      [`${name}_scale_inv`, [0, 0, 0, 0]],
    ] as const) {
      const from = await modelIn("fp8");
      await changeTensors(join(from, "model.safetensors"), (tensors) => tensors.get(key)!.bytes.set(bytes));
      for (const format of ["fp8", "bf16"] as const) {
        const error = await refused(from, { format });
        expect(error, format).toBeInstanceOf(CheckpointError);
        expect((error as CheckpointError).fields).toMatchObject({ key });
      }
    }
  });

  test("refuses a model that its config does not describe", async () => {
    const from = await modelIn("f32");
    await changeTensors(join(from, "model.safetensors"), (tensors) => tensors.delete("lm_head.weight"));
    expect(String(await refused(from))).toContain("holds no lm_head.weight");
  });

  test("refuses a checkpoint that is not as it was written", async () => {
    const run = await newRun();
    const store = new CheckpointStore(run, { keepNewest: 1, keepEvery: 0, keepBest: false });
    const { written } = await store.write(1, null, 0, (folder) => writeModel(folder, tiny.factory));
    const to = join(await scratchFolder(), "converted");
    await writeFile(join(written.path, "generation_config.json"), "{}");
    await expect(convertCheckpoint(written.path, to, { format: "fp8" })).rejects.toThrow(/is damaged/);
  });

  test("gives up between two tensors when it is told to", async () => {
    const from = await modelIn("f32");
    const controller = new AbortController();
    const seen: ConvertProgress[] = [];
    const error = await refused(from, {
      signal: controller.signal,
      onProgress(progress) {
        seen.push(progress);
        if (seen.length === 5) controller.abort(new Error("enough"));
      },
    });
    expect(error).toEqual(new Error("enough"));
    expect(seen.map(({ tensors }) => tensors)).toEqual([0, 1, 2, 3, 4]);
    expect(seen.every(({ bytes, ofBytes }) => bytes < ofBytes)).toBe(true);
  });
});
