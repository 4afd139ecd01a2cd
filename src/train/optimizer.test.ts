import { afterAll, describe, expect, test } from "vitest";
import {
  backward,
  byDiskName,
  type GoldenModel,
  loadGoldenModel,
  readGoldens,
  readScalars,
} from "../../test/support/goldenModel.ts";
import { makeOracleDevice } from "../../test/support/gradient.ts";
import { makeNativeDevice, nativeIsMissing } from "../../test/support/native.ts";
import { makeVector } from "../../test/support/parameters.ts";
import { distance } from "../../test/support/tolerance.ts";
import type { PrecisionName } from "../model/index.ts";
import { copyInto, fill, globalGradNorm, Parameter, type QueueDevice, type Tensor } from "../tensor/index.ts";
import type { OptimizerConfig } from "./config.ts";
import { Optimizer } from "./optimizer.ts";

const published: OptimizerConfig = {
  kind: "adamw",
  learningRate: 1e-2,
  beta1: 0.9,
  beta2: 0.95,
  eps: 1e-8,
  weightDecay: 0.1,
  clipNorm: 1,
  momentum: 0.95,
  moments: "f32",
  emaDecay: null,
};

interface Setting {
  readonly name: string;
  readonly device: QueueDevice;
  readonly precision: PrecisionName;
}

const settings: Setting[] = [{ name: "reference, f64", device: makeOracleDevice(), precision: "f64" }];
if (!nativeIsMissing)
  settings.push({ name: "native, f32", device: makeNativeDevice(undefined, 2).device, precision: "f32" });

afterAll(async () => {
  for (const { device } of settings) await device.dispose();
});

function update(optimizer: Optimizer, norm: Tensor, learningRate: number): void {
  optimizer.advance(learningRate);
  optimizer.update(norm);
}

/** One step on main + 0.3 / D * MTP, as the golden's script takes it; returns loss and norm. */
async function goldenStep(
  golden: GoldenModel,
  optimizer: Optimizer,
): Promise<{ loss: number; norm: number }> {
  const { main, mtp } = backward(golden, 0.3);
  const mean = async (tensor: Tensor, count: number): Promise<number> =>
    Array.from(await tensor.read()).reduce((sum, value) => sum + value, 0) / count;
  const loss =
    (await mean(main.loss, golden.counts.main)) + 0.3 * (await mean(mtp[0]!.loss, golden.counts.mtp[0]!));
  const norm = globalGradNorm(golden.factory.parameters.map(({ grad }) => grad!));
  update(optimizer, norm, published.learningRate);
  return { loss, norm: (await norm.read())[0]! };
}

describe.each(settings)("three AdamW steps, $name", ({ device, precision }) => {
  test("give the losses, gradient norms and weights that PyTorch gives", { timeout: 120_000 }, async () => {
    const golden = await loadGoldenModel(device, "a00-base", precision);
    const optimizer = new Optimizer(device, golden.factory.parameters, published);
    optimizer.initialize();
    const wanted = readScalars("a00-base")["adamw"] as unknown as readonly {
      loss: number;
      grad_norm: number;
    }[];
    const biases = await Promise.all(golden.factory.buffers.map(({ value }) => value.readBytes()));
    for (let step = 1; step <= 3; step++) {
      const { loss, norm } = await goldenStep(golden, optimizer);
      expect(loss / wanted[step - 1]!.loss).toBeCloseTo(1, 5);
      expect(norm / wanted[step - 1]!.grad_norm).toBeCloseTo(1, 4);
      if (step !== 2) await expectWeights(golden, `adamw.step${step}`);
    }
    // The optimizer never moves a router bias.
    expect(await Promise.all(golden.factory.buffers.map(({ value }) => value.readBytes()))).toEqual(biases);
  });
});

/** Tolerance of the class "weights": relative Frobenius 1e-4 per tensor (test/golden/README.md). */
async function expectWeights(golden: GoldenModel, file: string): Promise<void> {
  const ours = await byDiskName(
    golden,
    (path) => golden.factory.parameters.find((p) => p.path === path)?.master ?? null,
  );
  const theirs = readGoldens("a00-base", file)!;
  let compared = 0;
  for (const [name, { values }] of theirs) {
    const found = ours.get(name);
    if (found === undefined) continue;
    expect(distance(found, values).frobenius, `${file}: ${name}`).toBeLessThanOrEqual(1e-4);
    compared++;
  }
  expect(compared).toBe(ours.size);
}

describe("Optimizer", () => {
  const device = makeOracleDevice();

  function matrix(path: string): Parameter {
    const parameter = Parameter.make(device, path, [2, 3], {
      compute: "f32",
      master: "f32",
      isTrained: true,
    });
    parameter.master.write([1, -2, 3, -4, 5, -6]);
    fill(parameter.grad!, 0);
    parameter.repack();
    return parameter;
  }

  function vector(path: string): Parameter {
    const parameter = makeVector(device, path, [3], { seed: 1, dtype: "f32" });
    parameter.master.write([1, -2, 3]);
    return parameter;
  }

  function made(parameters: readonly Parameter[], changes: Partial<OptimizerConfig> = {}): Optimizer {
    const optimizer = new Optimizer(device, parameters, { ...published, ...changes });
    optimizer.initialize();
    return optimizer;
  }

  const norm = (value: number): Tensor => device.from([value], [1], "f32");

  test("under Muon keeps one momentum for hidden matrices, and AdamW's two moments for head, tables and vectors", async () => {
    const table = Parameter.make(device, "model.embedTokens.weight", [2, 3], {
      compute: null,
      master: "f32",
      isTrained: true,
    });
    table.master.write([1, -2, 3, -4, 5, -6]);
    const parameters = [matrix("w"), matrix("lmHead.weight"), table, vector("gain")];
    const optimizer = made(parameters, { kind: "muon", weightDecay: 0 });
    expect(optimizer.moments.map(({ v }) => v === null)).toEqual([true, false, false, false]);
    const before = await Promise.all(parameters.map(({ master }) => master.read()));
    for (const { grad, size } of parameters) grad!.write([1, 2, 3, 4, 5, 7].slice(0, size));
    update(optimizer, norm(1), 0.01);
    for (const [i, { master }] of parameters.entries()) {
      const moved = Array.from(await master.read()).map((value, j) => Math.abs(value - before[i]![j]!));
      // AdamW's first step moves every weight by the learning rate; Muon's by singular directions.
      const isAlike = moved.every((step) => Math.abs(step - 0.01) < 1e-5);
      expect(isAlike, parameters[i]!.path).toBe(i > 0);
    }
    const rms = Math.sqrt(
      Array.from(await parameters[0]!.master.read()).reduce(
        (sum, x, j) => sum + (x - before[0]![j]!) ** 2,
        0,
      ) / 6,
    );
    expect(rms / 0.01).toBeGreaterThan(0.1);
    expect(rms / 0.01).toBeLessThan(0.3);
    optimizer.dispose();
  });

  test("begins with moments of zero, whatever lay in their memory", async () => {
    const optimizer = new Optimizer(device, [matrix("w"), vector("gain")], { ...published, kind: "muon" });
    const moments = optimizer.moments.flatMap(({ m, v }) => (v === null ? [m] : [m, v]));
    for (const moment of moments) fill(moment, Number.NaN);
    optimizer.initialize();
    expect(moments).toHaveLength(3);
    for (const moment of moments) expect(new Set(await moment.read())).toEqual(new Set([0]));
    optimizer.dispose();
  });

  test("lets matrices decay and vectors not", async () => {
    const [w, gain] = [matrix("w"), vector("gain")];
    update(made([w, gain]), norm(0), 0.5);
    expect(Array.from(await w.master.read())).toEqual(
      [1, -2, 3, -4, 5, -6].map((x) => Math.fround(x - 0.5 * 0.1 * x)),
    );
    expect(Array.from(await gain.master.read())).toEqual([1, -2, 3]);
  });

  test("takes a first step of the learning rate against each gradient, however large", async () => {
    const gain = vector("gain");
    gain.grad!.write([1e-3, -4, 500]);
    update(made([gain], { clipNorm: 1e9 }), norm(500), 0.25);
    expect(Array.from(await gain.master.read(), (x) => Math.round(x * 1e4) / 1e4)).toEqual([
      0.75, -1.75, 2.75,
    ]);
  });

  test("scales gradients down to the clip norm and never up", async () => {
    for (const [given, factor] of [
      [4, 0.25],
      [0.5, 1],
    ] as const) {
      const gain = vector("gain");
      gain.grad!.write([1, 2, -3]);
      const optimizer = made([gain]);
      update(optimizer, norm(given), 0.1);
      const m = Array.from(await optimizer.moments[0]!.m.read());
      expect(
        distance(
          m,
          [1, 2, -3].map((g) => 0.1 * factor * g),
        ).frobenius,
      ).toBeLessThan(1e-5);
    }
  });

  test("writes the packed weights of the next forward pass in the same step", async () => {
    const w = matrix("w");
    w.grad!.write([1, 1, -1, 2, 2, -2]);
    update(made([w]), norm(1), 0.1);
    const [panels, panelsT] = [await w.panels!.readBytes(), await w.panelsT!.readBytes()];
    w.repack();
    expect(await w.panels!.readBytes()).toEqual(panels);
    expect(await w.panelsT!.readBytes()).toEqual(panelsT);
  });

  test("counts its updates, from which the bias correction follows; a restored count goes on alike", async () => {
    const grads = [
      [1, 2, 3],
      [-1, 0, 2],
      [0.5, 0.5, 0.5],
    ];
    const run = async (stopAfter: number): Promise<Uint8Array> => {
      const gain = vector("gain");
      let optimizer = made([gain]);
      for (const [i, grad] of grads.entries()) {
        if (i === stopAfter) {
          const resumed = made([gain]);
          copyInto(optimizer.moments[0]!.m, resumed.moments[0]!.m);
          copyInto(optimizer.moments[0]!.v!, resumed.moments[0]!.v!);
          resumed.updates = optimizer.updates;
          optimizer = resumed;
        }
        gain.grad!.write(grad);
        update(optimizer, norm(1), 0.1);
      }
      expect(optimizer.updates).toBe(3);
      return gain.master.readBytes();
    };
    expect(await run(2)).toEqual(await run(-1));
  });

  test("keeps averages of the weights only if it is told to, starting from the weights", async () => {
    const gain = vector("gain");
    expect(made([gain]).averages).toEqual([]);
    const optimizer = made([gain], { emaDecay: 0.75 });
    expect(Array.from(await optimizer.averages[0]!.read())).toEqual([1, -2, 3]);
    gain.grad!.write([1, 1, 1]);
    update(optimizer, norm(1), 0.5);
    const moved = Array.from(await gain.master.read());
    const wanted = [1, -2, 3].map((before, i) => 0.75 * before + 0.25 * moved[i]!);
    expect(distance(await optimizer.averages[0]!.read(), wanted).frobenius).toBeLessThan(1e-6);
  });

  test("holds moments of the dtype and size it is told, and gives all of its memory back", () => {
    const parameters = [matrix("w"), vector("gain")];
    const before = device.arena.liveCount;
    const optimizer = made(parameters, { moments: "bf16", emaDecay: 0.9 });
    expect(optimizer.moments.map(({ m, v }) => [m.dtype, v?.dtype, m.storage.bytes])).toEqual([
      ["bf16", "bf16", 12],
      ["bf16", "bf16", 6],
    ]);
    expect(device.arena.liveCount).toBe(before + 6);
    optimizer.dispose();
    expect(device.arena.liveCount).toBe(before);
  });

  test("trains in bf16 moments to nearly the same weights", async () => {
    const [exact, rounded] = [vector("a"), vector("b")];
    for (const [parameter, moments] of [
      [exact, "f32"],
      [rounded, "bf16"],
    ] as const) {
      const optimizer = made([parameter], { moments });
      for (let i = 0; i < 20; i++) {
        parameter.grad!.write([Math.sin(i), 0.3, -1 + 0.01 * i]);
        update(optimizer, norm(1), 0.01);
      }
    }
    const [one, two] = [await exact.master.read(), await rounded.master.read()];
    expect(two).not.toEqual(one);
    expect(distance(two, one).frobenius).toBeLessThan(5e-3);
  });
});
