import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { makeOracleDevice } from "../../test/support/gradient.ts";
import { normals } from "../../test/support/random.ts";
import { readSafetensors } from "../../test/support/safetensors.ts";
import { scratchFolder } from "../../test/support/scratchFolder.ts";
import { makeTinyModel, snapshot, tinyConfig } from "../../test/support/tinyModel.ts";
import { CheckpointError, type JsonObject } from "../base/index.ts";
import type { Dtype } from "../tensor/index.ts";
import { readModel, writeModel } from "./model.ts";
import { masterTensors, readTrainState, type StateTensor, writeTrainState } from "./trainState.ts";

const device = makeOracleDevice();

function state(name: string, dtype: Dtype, shape: readonly number[], seed: number | null = 1): StateTensor {
  const tensor = device.temporary(shape, dtype);
  if (seed !== null) tensor.write(normals(tensor.size, seed));
  return { name, tensor };
}

const plain: JsonObject = {
  step: 12,
  guard: { losses: [1.5, 0.1 + 0.2] },
  data: { epoch: 1, row: 7 },
  best: null,
};

async function written(tensors: readonly StateTensor[]): Promise<string> {
  const folder = await scratchFolder();
  await writeTrainState(folder, tensors, plain);
  return folder;
}

describe("the state of a run that is written and read again", () => {
  test("has the same bits, in f32 and in bf16, and the same plain numbers", async () => {
    const tensors = [
      state("moment.m.a", "f32", [3, 4]),
      state("moment.v.a", "bf16", [3, 4]),
      state("average.b", "f32", [5]),
    ];
    const folder = await written(tensors);
    const empty = tensors.map(({ name, tensor }) => state(name, tensor.dtype, tensor.shape, null));
    expect(await readTrainState(folder, empty)).toEqual(plain);
    for (const [i, { tensor }] of empty.entries())
      expect(await tensor.readBytes()).toEqual(await tensors[i]!.tensor.readBytes());
  });

  test("says in its file that it is ours, not a model's", async () => {
    const folder = await written([state("moment.m.a", "f32", [2])]);
    const file = await readFile(join(folder, "optimizer.safetensors"));
    expect(file.toString("utf8", 8, 200)).toContain('"__metadata__":{"format":"minke"}');
    expect([...readSafetensors(file).keys()]).toEqual(["moment.m.a"]);
  });

  test("may be empty: f32 without moments", async () => {
    const folder = await written([]);
    expect(await readTrainState(folder, [])).toEqual(plain);
  });

  test("together with the model's file restores every master of a bf16 run to the bit", async () => {
    const made = makeTinyModel(device, tinyConfig(), { precision: "bf16" });
    const folder = await scratchFolder();
    await writeModel(folder, made.factory);
    await writeTrainState(folder, masterTensors(made.factory), plain);
    const read = makeTinyModel(device, tinyConfig(), { precision: "bf16", seed: null });
    await readModel(folder, read.factory);
    expect(await snapshot(read.factory)).not.toEqual(await snapshot(made.factory));
    await readTrainState(folder, masterTensors(read.factory));
    expect(await snapshot(read.factory)).toEqual(await snapshot(made.factory));
  });
});

describe("masterTensors", () => {
  test("are none in f32, where the model's file is exact", () => {
    expect(masterTensors(makeTinyModel(device).factory)).toEqual([]);
  });

  test("are all matrices in bf16, by their paths", () => {
    const { factory } = makeTinyModel(device, tinyConfig(), { precision: "bf16" });
    const names = masterTensors(factory).map(({ name }) => name);
    const matrices = factory.parameters.filter(({ shape }) => shape.length > 1);
    expect(names).toEqual(matrices.map(({ path }) => `master.${path}`));
    expect(names).toContain("master.model.layers.1.mlp.experts.gateUpProj");
    expect(names).not.toContain("master.model.norm.weight");
  });
});

describe("a state that does not fit is refused:", () => {
  async function refusal(folder: string, tensors: readonly StateTensor[]): Promise<CheckpointError> {
    const outcome: unknown = await readTrainState(folder, tensors).then(
      () => "it was read",
      (error: unknown) => error,
    );
    expect(outcome).toBeInstanceOf(CheckpointError);
    return outcome as CheckpointError;
  }

  test("a tensor is missing", async () => {
    const folder = await written([state("a", "f32", [2])]);
    const error = await refusal(folder, [state("a", "f32", [2]), state("b", "f32", [2])]);
    expect(error.message.replaceAll(folder, "FOLDER")).toMatchInlineSnapshot(`
      "FOLDER/optimizer.safetensors: b does not fit this run
        why: it is missing there, or of another shape or dtype
        fix: resume with the settings with which the run was started; they are in its run.json"
    `);
  });

  test("a tensor is left over", async () => {
    const folder = await written([state("a", "f32", [2]), state("average.a", "f32", [2])]);
    const error = await refusal(folder, [state("a", "f32", [2])]);
    expect(error.message).toMatch(
      /average\.a does not fit this run\n {2}why: the run's settings have no such tensor/,
    );
  });

  test.each<[string, Dtype, readonly number[]]>([
    ["another shape", "f32", [3, 2]],
    ["fewer dimensions", "f32", [6]],
    ["another dtype", "bf16", [2, 3]],
  ])("a tensor has %s", async (_, dtype, shape) => {
    const folder = await written([state("a", "f32", [2, 3])]);
    expect((await refusal(folder, [state("a", dtype, shape)])).fields["key"]).toBe("a");
  });

  test("the folder holds a model only", async () => {
    const folder = await written([]);
    await rm(join(folder, "state.json"));
    expect((await refusal(folder, [])).message).toMatch(
      /is a model without the state of a run: it has no state\.json/,
    );
    await writeFile(join(folder, "state.json"), "{}");
    await rm(join(folder, "optimizer.safetensors"));
    expect((await refusal(folder, [])).message).toMatch(/it has no optimizer\.safetensors/);
  });

  test("state.json is cut", async () => {
    const folder = await written([]);
    await writeFile(join(folder, "state.json"), '{"step": 1');
    expect((await refusal(folder, [])).message).toMatch(/state\.json is not JSON/);
  });
});
