import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { makeOracleDevice } from "../../test/support/gradient.ts";
import { readSafetensors } from "../../test/support/safetensors.ts";
import { scratchFolder } from "../../test/support/scratchFolder.ts";
import { changeTensors, type DiskContent } from "../../test/support/spoiltCheckpoint.ts";
import { makeTinyModel, snapshot, type TinyModel, tinyConfig } from "../../test/support/tinyModel.ts";
import { CheckpointError, ConfigError } from "../base/index.ts";
import type { ModelConfig, PrecisionName } from "../model/index.ts";
import { bf16FromNumber, bf16ToNumber } from "../tensor/index.ts";
import { readModel, readModelConfig, writeModel } from "./model.ts";
import { diskTensors } from "./names.ts";
import { SafetensorsFile } from "./safetensors.ts";

const device = makeOracleDevice();

function empty(config?: ModelConfig, precision: PrecisionName = "f32"): TinyModel {
  return makeTinyModel(device, config, { precision, seed: null });
}

async function writtenModel(
  precision: PrecisionName = "f32",
  shardBytes?: number,
): Promise<[string, TinyModel]> {
  const folder = await scratchFolder();
  const made = makeTinyModel(device, tinyConfig(), { precision });
  await writeModel(folder, made.factory, shardBytes === undefined ? {} : { shardBytes });
  return [folder, made];
}

function rewrite(folder: string, change: (tensors: Map<string, DiskContent>) => void): Promise<void> {
  return changeTensors(join(folder, "model.safetensors"), change);
}

async function refusal(folder: string, into: TinyModel = empty()): Promise<CheckpointError> {
  const outcome: unknown = await readModel(folder, into.factory).then(
    () => "it was read",
    (error: unknown) => error,
  );
  expect(outcome).toBeInstanceOf(CheckpointError);
  return outcome as CheckpointError;
}

describe("a model that is written and read again", () => {
  test("has the same bits in f32", async () => {
    const [folder, made] = await writtenModel();
    const read = empty();
    await readModel(folder, read.factory);
    expect(await snapshot(read.factory)).toEqual(await snapshot(made.factory));
  });

  test("has, in bf16, its matrices rounded to what was multiplied, and everything else to the bit", async () => {
    const [folder, made] = await writtenModel("bf16");
    const read = empty(undefined, "bf16");
    await readModel(folder, read.factory);
    const kinds = new Map(diskTensors(made.factory).map(({ path, kind }) => [path, kind]));
    for (const [i, { path, master, panels }] of made.factory.parameters.entries()) {
      const before = Array.from(await master.read());
      const wanted =
        kinds.get(path) !== "exact" ? before.map((x) => bf16ToNumber(bf16FromNumber(x))) : before;
      expect(Array.from(await read.factory.parameters[i]!.master.read()), path).toEqual(wanted);
      if (panels !== null)
        expect(await read.factory.parameters[i]!.panels!.readBytes(), path).toEqual(await panels.readBytes());
    }
    for (const [i, { value }] of made.factory.buffers.entries())
      expect(await read.factory.buffers[i]!.value.readBytes()).toEqual(await value.readBytes());
  });

  test("is the same file when it is written a second time", async () => {
    for (const precision of ["f32", "bf16"] as const) {
      const [folder] = await writtenModel(precision);
      const read = empty(undefined, precision);
      await readModel(folder, read.factory);
      const again = await scratchFolder();
      await writeModel(again, read.factory);
      for (const name of await readdir(folder))
        expect(await readFile(join(again, name)), name).toEqual(await readFile(join(folder, name)));
    }
  });

  test("is rounded to f32 where its masters are doubles", async () => {
    const [folder, made] = await writtenModel("f64");
    const read = empty();
    await readModel(folder, read.factory);
    const [ours, theirs] = [read.factory.parameters[0]!, made.factory.parameters[0]!];
    expect(Array.from(await ours.master.read())).toEqual(Array.from(await theirs.master.read(), Math.fround));
  });

  test("comes with the config that describes it, in the dtype of its weights", async () => {
    for (const [precision, torchDtype] of [
      ["f32", "float32"],
      ["bf16", "bfloat16"],
    ] as const) {
      const [folder, { config }] = await writtenModel(precision);
      expect(await readModelConfig(folder)).toEqual({ ...config, torchDtype, quantizationConfig: null });
    }
  });

  test("tells generators where texts begin and end", async () => {
    const [folder] = await writtenModel();
    const text = await readFile(join(folder, "generation_config.json"), "utf8");
    expect(JSON.parse(text)).toEqual({ bos_token_id: 0, eos_token_id: 1, do_sample: true });
  });

  test("is one file, in which MTP's copies of embedding and head equal the main model's", async () => {
    const [folder] = await writtenModel();
    expect((await readdir(folder)).sort()).toEqual([
      "config.json",
      "generation_config.json",
      "model.safetensors",
    ]);
    const tensors = readSafetensors(await readFile(join(folder, "model.safetensors")));
    expect(tensors.get("model.layers.2.embed_tokens.weight")).toEqual(
      tensors.get("model.embed_tokens.weight"),
    );
    expect(tensors.get("model.layers.2.shared_head.head.weight")).toEqual(tensors.get("lm_head.weight"));
  });

  test("has gate and up as the two halves of the matrix that is multiplied, expert by expert", async () => {
    const [folder, { factory, config }] = await writtenModel();
    const tensors = readSafetensors(await readFile(join(folder, "model.safetensors")));
    const path = "model.layers.1.mlp.experts.gateUpProj";
    const joined = Array.from(await factory.parameters.find((p) => p.path === path)!.master.read());
    const half = config.moeIntermediateSize * config.hiddenSize;
    for (const e of [0, 3, 7]) {
      const name = (half: string): string => `model.layers.1.mlp.experts.${e}.${half}_proj.weight`;
      expect(Array.from(tensors.get(name("gate"))!.values)).toEqual(
        joined.slice(2 * e * half, (2 * e + 1) * half),
      );
      expect(Array.from(tensors.get(name("up"))!.values)).toEqual(
        joined.slice((2 * e + 1) * half, (2 * e + 2) * half),
      );
    }
  });
});

describe("a model in shards", () => {
  const indexOf = async (
    folder: string,
  ): Promise<{ metadata: { total_size: number }; weight_map: Record<string, string> }> =>
    JSON.parse(await readFile(join(folder, "model.safetensors.index.json"), "utf8"));

  test("is read as the whole one is, wherever a shard begins, in the middle of a layer too", async () => {
    const { factory: whole } = makeTinyModel(device);
    for (const shardBytes of [4000, 9001, 30_000]) {
      const [folder] = await writtenModel("f32", shardBytes);
      const files = new Set(Object.values((await indexOf(folder)).weight_map));
      expect(files.size).toBeGreaterThan(1);
      const read = empty();
      await readModel(folder, read.factory);
      expect(await snapshot(read.factory)).toEqual(await snapshot(whole));
    }
  });

  test("has an index that names every tensor once, with the file that holds it, and their bytes", async () => {
    const [folder, { factory }] = await writtenModel("bf16", 6000);
    const { metadata, weight_map: map } = await indexOf(folder);
    expect(Object.keys(map).sort()).toEqual(
      diskTensors(factory)
        .map(({ name }) => name)
        .sort(),
    );
    let bytes = 0;
    for (const name of new Set(Object.values(map))) {
      const file = await SafetensorsFile.open(join(folder, name));
      for (const entry of file.tensors.values()) {
        expect(map[entry.name]).toBe(name);
        bytes += entry.end - entry.begin;
      }
      await file.close();
    }
    expect(metadata.total_size).toBe(bytes);
  });

  test("keeps every shard below the limit, save one tensor that is larger by itself", async () => {
    const [folder] = await writtenModel("f32", 5000);
    for (const name of new Set(Object.values((await indexOf(folder)).weight_map))) {
      const file = await SafetensorsFile.open(join(folder, name));
      const bytes = [...file.tensors.values()].reduce((sum, { begin, end }) => sum + end - begin, 0);
      expect(bytes <= 5000 || file.tensors.size === 1).toBe(true);
      await file.close();
    }
  });

  test("numbers its shards as Hugging Face does, from 1, in five digits", async () => {
    const [folder] = await writtenModel("f32", 30_000);
    const names = (await readdir(folder)).filter((name) => name.endsWith(".safetensors")).sort();
    const of = String(names.length).padStart(5, "0");
    expect(names[0]).toBe(`model-00001-of-${of}.safetensors`);
    expect(names.at(-1)).toBe(`model-${of}-of-${of}.safetensors`);
  });

  test("may have other names than ours: the index is believed, names are never parsed", async () => {
    const [folder, made] = await writtenModel("f32", 30_000);
    const index = await indexOf(folder);
    const renamed: Record<string, string> = {};
    for (const [tensor, name] of Object.entries(index.weight_map)) {
      const other = `part-${name.slice(6, 11)}.bin`;
      renamed[tensor] = other;
      await writeFile(join(folder, other), await readFile(join(folder, name)));
    }
    for (const name of Object.values(index.weight_map)) await rm(join(folder, name), { force: true });
    await writeFile(join(folder, "model.safetensors.index.json"), JSON.stringify({ weight_map: renamed }));
    const read = empty();
    await readModel(folder, read.factory);
    expect(await snapshot(read.factory)).toEqual(await snapshot(made.factory));
  });

  test("is refused by the name of the shard that is missing", async () => {
    const [folder] = await writtenModel("f32", 30_000);
    const [first] = Object.values((await indexOf(folder)).weight_map);
    await rm(join(folder, first!));
    const error = await refusal(folder);
    expect(error.message).toContain(`has no ${first}`);
    expect(error.message).toContain("the index names this shard");
  });

  test("is refused if two shards hold one tensor: nobody could say which is meant", async () => {
    const [folder] = await writtenModel("f32", 30_000);
    const index = await indexOf(folder);
    const [first] = Object.values(index.weight_map);
    await writeFile(join(folder, "twin.safetensors"), await readFile(join(folder, first!)));
    const map = { ...index.weight_map, extra: "twin.safetensors" };
    await writeFile(join(folder, "model.safetensors.index.json"), JSON.stringify({ weight_map: map }));
    expect((await refusal(folder)).message).toMatch(
      /twin\.safetensors: holds model\.embed_tokens\.weight, and so does/,
    );
  });

  test.each([
    ["no JSON", "{"],
    ["a list", "[]"],
    ["an index without weight_map", '{"metadata":{}}'],
    ["a weight_map of numbers", '{"weight_map":{"a":1}}'],
    ["a file outside the folder", '{"weight_map":{"a":"../model.safetensors"}}'],
  ])("is refused if its index is %s", async (_, text) => {
    const [folder] = await writtenModel("f32", 30_000);
    await writeFile(join(folder, "model.safetensors.index.json"), text);
    expect((await refusal(folder)).message).toMatch(/is no index of shards/);
  });
});

describe("a file that is not this model", () => {
  test("is refused by the first tensor that is missing", async () => {
    const [folder] = await writtenModel();
    await rewrite(folder, (tensors) => tensors.delete("model.layers.1.mlp.experts.5.up_proj.weight"));
    const error = await refusal(folder);
    expect(error.message.replaceAll(folder, "FOLDER")).toMatchInlineSnapshot(`
      "FOLDER holds no model.layers.1.mlp.experts.5.up_proj.weight
        why: the model of its config.json has this tensor, of shape [7, 16]
        fix: use the config.json that was written with the weights"
    `);
    expect(error.fields["key"]).toBe("model.layers.1.mlp.experts.5.up_proj.weight");
  });

  test("is refused by a tensor for which the model has no place", async () => {
    const [folder] = await writtenModel();
    await rewrite(folder, (tensors) => {
      tensors.set("model.layers.9.surprise", { dtype: "F32", shape: [1], bytes: new Uint8Array(4) });
    });
    expect((await refusal(folder)).message.replaceAll(folder, "FOLDER")).toMatchInlineSnapshot(`
      "FOLDER: the model has no place for 1 tensors, the first is model.layers.9.surprise
        why: a weight that is left out in silence makes another model than the one that was trained
        fix: check num_hidden_layers, num_nextn_predict_layers and n_routed_experts in config.json"
    `);
  });

  test("is refused where its layers are more than the config says", async () => {
    const [folder] = await writtenModel();
    const error = await refusal(folder, empty(tinyConfig({ numNextnPredictLayers: 0 })));
    expect(error.message).toMatch(/no place for \d+ tensors, the first is model\.layers\.2\./);
  });

  test("is refused by a tensor of another shape, transposed ones included", async () => {
    const [folder] = await writtenModel();
    await rewrite(folder, (tensors) => {
      const found = tensors.get("model.layers.0.self_attn.o_proj.weight")!;
      tensors.set("model.layers.0.self_attn.o_proj.weight", { ...found, shape: found.shape.toReversed() });
    });
    const error = await refusal(folder);
    expect(error.message).toContain("o_proj.weight is [12, 16], the model wants [16, 12]");
    expect(error.fields).toMatchObject({ shape: [12, 16], wanted: [16, 12] });
  });

  test("is refused by a copy of the embedding that has another shape, though copies are not read", async () => {
    const [folder] = await writtenModel();
    await rewrite(folder, (tensors) => {
      const found = tensors.get("model.layers.2.embed_tokens.weight")!;
      tensors.set("model.layers.2.embed_tokens.weight", { ...found, shape: [16, 48] });
    });
    expect((await refusal(folder)).message).toContain("model.layers.2.embed_tokens.weight is [16, 48]");
  });

  test("is refused if its weights are of a dtype that is none for weights, with those that can be read", async () => {
    const [folder] = await writtenModel();
    await rewrite(folder, (tensors) => {
      tensors.set("lm_head.weight", { dtype: "F8_E8M0", shape: [48, 16], bytes: new Uint8Array(48 * 16) });
    });
    expect((await refusal(folder)).message).toMatch(
      /lm_head\.weight is F8_E8M0\n {2}why: weights are read from F32, BF16.*F8_E4M3 with scales/,
    );
  });

  test("is refused if there are no weights at all", async () => {
    const [folder] = await writtenModel();
    await rm(join(folder, "model.safetensors"));
    expect((await refusal(folder)).message).toMatch(/has no model\.safetensors/);
  });
});

describe("files of other writers", () => {
  test("may leave out MTP's copies of embedding and head", async () => {
    const [folder, made] = await writtenModel();
    await rewrite(folder, (tensors) => {
      tensors.delete("model.layers.2.embed_tokens.weight");
      tensors.delete("model.layers.2.shared_head.head.weight");
    });
    const read = empty();
    await readModel(folder, read.factory);
    expect(await snapshot(read.factory)).toEqual(await snapshot(made.factory));
  });

  test("may still hold rotary frequencies, which follow from the config", async () => {
    const [folder] = await writtenModel();
    await rewrite(folder, (tensors) => {
      const name = "model.layers.0.self_attn.rotary_emb.inv_freq";
      tensors.set(name, { dtype: "F32", shape: [2], bytes: new Uint8Array(8) });
    });
    await readModel(folder, empty().factory);
  });

  test("may hold halves and doubles, which are widened or rounded", async () => {
    const [folder] = await writtenModel();
    await rewrite(folder, (tensors) => {
      const halves = new Uint8Array(Uint16Array.from({ length: 16 }, (_, i) => 0x3c00 + i).buffer);
      const doubles = new Uint8Array(Float64Array.from({ length: 16 }, (_, i) => 1 + i / 3).buffer);
      tensors.set("model.norm.weight", { dtype: "F16", shape: [16], bytes: halves });
      tensors.set("model.layers.0.input_layernorm.weight", { dtype: "F64", shape: [16], bytes: doubles });
    });
    const read = empty();
    await readModel(folder, read.factory);
    const valuesOf = async (path: string): Promise<number[]> =>
      Array.from(await read.factory.parameters.find((p) => p.path === path)!.master.read());
    expect(await valuesOf("model.norm.weight")).toEqual(Array.from({ length: 16 }, (_, i) => 1 + i / 1024));
    expect(await valuesOf("model.layers.0.inputLayernorm.weight")).toEqual(
      Array.from({ length: 16 }, (_, i) => Math.fround(1 + i / 3)),
    );
  });
});

describe("readModelConfig", () => {
  test("says what a folder without config.json is not", async () => {
    const folder = await scratchFolder();
    const missing = readModelConfig(folder);
    await expect(missing).rejects.toThrow(CheckpointError);
    await expect(missing).rejects.toThrow(/holds no config\.json/);
  });

  test("says so if the path leads through a file", async () => {
    const folder = await scratchFolder();
    await writeFile(join(folder, "file"), "x");
    await expect(readModelConfig(join(folder, "file"))).rejects.toThrow(/holds no config\.json/);
  });

  test("names the file that is no JSON", async () => {
    const folder = await scratchFolder();
    await writeFile(join(folder, "config.json"), "{ not json");
    await expect(readModelConfig(folder)).rejects.toThrow(/config\.json is not JSON/);
  });

  test("refuses a config of another architecture with the field that is wrong", async () => {
    const folder = await scratchFolder();
    await writeFile(join(folder, "config.json"), JSON.stringify({ model_type: "llama", vocab_size: 3 }));
    await expect(readModelConfig(folder)).rejects.toThrow(ConfigError);
  });
});
