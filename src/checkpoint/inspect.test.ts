import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { makeOracleDevice } from "../../test/support/gradient.ts";
import { scratchFolder } from "../../test/support/scratchFolder.ts";
import { changeTensors } from "../../test/support/spoiltCheckpoint.ts";
import { makeTinyModel, tinyConfig } from "../../test/support/tinyModel.ts";
import { countParameters } from "../model/index.ts";
import { createRun } from "../run/index.ts";
import { inspectCheckpoint } from "./inspect.ts";
import { writeModel } from "./model.ts";
import { diskTensors } from "./names.ts";
import { CheckpointStore } from "./store.ts";

const { factory } = makeTinyModel(makeOracleDevice(), tinyConfig(), { precision: "bf16" });

describe("inspectCheckpoint", () => {
  test("lists every tensor with dtype, shape, bytes and file, and adds them up", async () => {
    const folder = await scratchFolder();
    await writeModel(folder, factory);
    const { tensors, parameters, bytes, config } = await inspectCheckpoint(folder);
    expect(tensors.map(({ name }) => name)).toEqual(diskTensors(factory).map(({ name }) => name));
    expect(tensors.find(({ name }) => name === "lm_head.weight")).toEqual({
      name: "lm_head.weight",
      dtype: "BF16",
      shape: [48, 16],
      bytes: 48 * 16 * 2,
      file: "model.safetensors",
    });
    expect(tensors.find(({ name }) => name === "model.layers.1.mlp.gate.weight")?.dtype).toBe("F32");
    expect(bytes).toBe(tensors.reduce((sum, tensor) => sum + tensor.bytes, 0));
    expect(parameters).toEqual(countParameters(config));
    expect(tensors.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)).toBe(
      parameters.stored,
    );
  });

  test("adds up what is stored in which dtype, scales of FP8 weights apart", async () => {
    const folder = await scratchFolder();
    await writeModel(folder, factory, { format: "fp8" });
    const { tensors, dtypes, scales, bytes, parameters } = await inspectCheckpoint(folder);
    expect(dtypes.map(({ dtype }) => dtype).sort()).toEqual(["BF16", "F32", "F8_E4M3"]);
    const kinds = diskTensors(factory).map(({ kind }) => kind);
    const shareOf = (wanted: string) => dtypes.find(({ dtype }) => dtype === wanted)!;
    expect(shareOf("F8_E4M3").tensors).toBe(kinds.filter((kind) => kind === "linear").length);
    expect(shareOf("BF16").bytes).toBe(2 * shareOf("BF16").numbers);
    expect(dtypes.map(({ numbers }) => numbers)).toEqual(
      dtypes.map(({ numbers }) => numbers).toSorted((a, b) => b - a),
    );
    expect(dtypes.reduce((sum, { numbers }) => sum + numbers, 0)).toBe(parameters.stored);
    // Every matrix of this model is smaller than a block.
    expect(scales).toEqual({
      ...{ dtype: "F32", tensors: shareOf("F8_E4M3").tensors },
      ...{ numbers: shareOf("F8_E4M3").tensors, bytes: 4 * shareOf("F8_E4M3").tensors },
    });
    expect(dtypes.reduce((sum, share) => sum + share.bytes, scales!.bytes)).toBe(bytes);
    expect(tensors.length).toBe(kinds.length + scales!.tensors);
  });

  test("finds no scales in a model without FP8, and refuses FP8 weights whose scales are gone", async () => {
    const folder = await scratchFolder();
    await writeModel(folder, factory);
    expect((await inspectCheckpoint(folder)).scales).toBeNull();
    const fp8 = await scratchFolder();
    await writeModel(fp8, factory, { format: "fp8" });
    const name = "model.layers.1.mlp.experts.5.up_proj.weight_scale_inv";
    await changeTensors(join(fp8, "model.safetensors"), (tensors) => tensors.delete(name));
    await expect(inspectCheckpoint(fp8)).rejects.toThrow(`is F8_E4M3 without ${name}`);
  });

  test("finds the tensors of a model in shards, each with its file", async () => {
    const [whole, cut] = [await scratchFolder(), await scratchFolder()];
    await writeModel(whole, factory);
    await writeModel(cut, factory, { shardBytes: 5000 });
    const [one, many] = [await inspectCheckpoint(whole), await inspectCheckpoint(cut)];
    const withoutFile = ({ tensors }: typeof one): unknown => tensors.map(({ file, ...rest }) => rest);
    expect(withoutFile(many)).toEqual(withoutFile(one));
    expect(new Set(many.tensors.map(({ file }) => file)).size).toBeGreaterThan(1);
    expect(many.bytes).toBe(one.bytes);
  });

  test("knows of a checkpoint of ours whether it is whole, and of others that it cannot know", async () => {
    const run = await createRun(join(await scratchFolder(), "run"), {
      version: "0",
      command: [],
      config: {},
    });
    const store = new CheckpointStore(run, { keepNewest: 1, keepEvery: 0, keepBest: false });
    const { written } = await store.write(1, null, 0, (folder) => writeModel(folder, factory));
    expect(await inspectCheckpoint(written.path)).toMatchObject({ isWhole: true, damage: null });
    await writeFile(join(written.path, "generation_config.json"), "{}");
    expect(await inspectCheckpoint(written.path)).toMatchObject({
      isWhole: false,
      damage: expect.stringContaining("generation_config.json has 2 bytes"),
    });
    const foreign = await scratchFolder();
    await writeModel(foreign, factory);
    expect(await inspectCheckpoint(foreign)).toMatchObject({ isWhole: null, damage: null });
  });

  test("refuses a folder without weights instead of showing an empty table", async () => {
    const whole = await scratchFolder();
    await writeModel(whole, factory, { shardBytes: 30_000 });
    await rm(join(whole, "model.safetensors.index.json"));
    await expect(inspectCheckpoint(whole)).rejects.toThrow(/has no model\.safetensors/);
    await writeFile(join(whole, "model.safetensors.index.json"), '{"weight_map":{"a":"gone.safetensors"}}');
    await expect(inspectCheckpoint(whole)).rejects.toThrow(/has no gone\.safetensors/);
  });
});
