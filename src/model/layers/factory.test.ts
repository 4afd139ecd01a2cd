import { describe, expect, test } from "vitest";
import { makeOracleDevice } from "../../../test/support/gradient.ts";
import { makeTinyModel, snapshot, tinyConfig } from "../../../test/support/tinyModel.ts";
import { PlanBackend, QueueDevice } from "../../tensor/index.ts";
import { precisions } from "../precision.ts";
import { ParameterFactory } from "./factory.ts";

const device = makeOracleDevice();

describe("first values", () => {
  test("depend on seed and path alone: a model with more layers or modules has the same weights elsewhere", async () => {
    const small = await snapshot(makeTinyModel(device, tinyConfig({ numNextnPredictLayers: 0 })).factory);
    const large = await snapshot(
      makeTinyModel(device, tinyConfig({ numNextnPredictLayers: 1, nSharedExperts: 1 })).factory,
    );
    expect(large.size).toBeGreaterThan(small.size);
    for (const [path, hash] of small) expect(large.get(path), path).toEqual(hash);
  });

  test("are others for another seed, and the same again for the same", async () => {
    const of = async (seed: number): Promise<Map<string, string>> =>
      snapshot(makeTinyModel(device, tinyConfig(), { seed }).factory);
    const [one, again, other] = [await of(1), await of(1), await of(2)];
    expect(again).toEqual(one);
    for (const [path, hash] of one)
      if (/norm|Bias/i.test(path)) expect(other.get(path), path).toEqual(hash);
      else expect(other.get(path), path).not.toEqual(hash);
  });

  test("are normal numbers of the config's range in matrices, ones in gains", async () => {
    const { factory, config } = makeTinyModel(device, tinyConfig({ vocabSize: 512, initializerRange: 0.05 }));
    for (const { path, master, shape } of factory.parameters) {
      const values = Array.from(await master.read());
      if (shape.length === 1) {
        expect(new Set(values), path).toEqual(new Set([1]));
        continue;
      }
      const deviation = Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length);
      // Standard deviation of an estimate from n numbers: 1 / sqrt(2n); five of them.
      expect(Math.abs(deviation / config.initializerRange - 1), path).toBeLessThan(
        5 / Math.sqrt(2 * values.length),
      );
      expect(Math.max(...values.map(Math.abs)), path).toBeLessThan(6 * config.initializerRange);
    }
  });

  test("are different in any two matrices of one shape", async () => {
    const hashes = [...(await snapshot(makeTinyModel(device, tinyConfig()).factory))].filter(
      ([path]) => !/norm|Bias/i.test(path),
    );
    expect(new Set(hashes.map(([, hash]) => hash)).size).toBe(hashes.length);
  });

  test("leave router biases at zero", async () => {
    const factory = new ParameterFactory(device, tinyConfig(), {
      precision: precisions.f32,
      isTrained: false,
    });
    const { value } = factory.buffer("gate.eScoreCorrectionBias", 5);
    value.write([1, 2, 3, 4, 5]);
    factory.initialize(1);
    expect(Array.from(await value.read())).toEqual([0, 0, 0, 0, 0]);
  });
});

describe("what a parameter is stored as", () => {
  const make = (precision: "f32" | "bf16", isTrained: boolean): ParameterFactory =>
    new ParameterFactory(new QueueDevice(new PlanBackend(), 2 ** 40), tinyConfig(), {
      precision: precisions[precision],
      isTrained,
    });

  test("is f32 with packed copies in the compute dtype; the router's are f32 whatever that is", () => {
    const factory = make("bf16", true);
    const matrix = factory.matrix("a", [4, 6]);
    const router = factory.exactMatrix("b", [4, 6]);
    expect([matrix.master.dtype, matrix.grad?.dtype, matrix.panels?.dtype, matrix.panelsT?.dtype]).toEqual([
      "f32",
      "f32",
      "bf16",
      "bf16",
    ]);
    expect([router.panels?.dtype, router.panelsT?.dtype]).toEqual(["f32", "f32"]);
  });

  test("has no packed copy where rows are looked up or a gain is read", () => {
    const factory = make("bf16", true);
    expect([factory.table("t", [8, 4]).panels, factory.gain("g", 4).panels]).toEqual([null, null]);
  });

  test("has neither gradient nor transposed copy where nothing is trained", () => {
    const factory = make("bf16", false);
    const { grad, panels, panelsT } = factory.matrix("a", [4, 6]);
    expect([grad, panelsT]).toEqual([null, null]);
    expect(panels).not.toBeNull();
  });

  test("is shared with a gradient of its own by a second user, and counted once", () => {
    const factory = make("f32", true);
    const owner = factory.matrix("head", [4, 6]);
    const alias = factory.share(owner, "mtp.head");
    expect([alias.master, alias.panels]).toEqual([owner.master, owner.panels]);
    expect(alias.grad).not.toBe(owner.grad);
    expect(factory.parameters).toEqual([owner]);
    expect(factory.tied).toEqual([{ owner, alias }]);
  });
});
