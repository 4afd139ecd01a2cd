import { describe, expect, test } from "vitest";
import { headLossOracle } from "../../../test/oracle/loss.ts";
import { linearCrossEntropyCases } from "../../../test/support/cases/loss.ts";
import { makeOracleDevice } from "../../../test/support/gradient.ts";
import { runCase } from "../../../test/support/opCase.ts";
import { inF64 } from "../../../test/support/oracleError.ts";
import { normals } from "../../../test/support/random.ts";
import { distance, isWithin, tolerances } from "../../../test/support/tolerance.ts";
import { BackendError, ShapeError } from "../../base/index.ts";
import { panelIndex } from "../panels.ts";
import { Parameter } from "../parameter.ts";
import { Tape } from "../tape.ts";
import type { Tensor } from "../tensor.ts";
import { fill } from "./elementwise.ts";
import { linear } from "./linear.ts";
import { linearCrossEntropy, linearCrossEntropyKernel } from "./linearCrossEntropy.ts";
import { reduceSum } from "./reduce.ts";

const device = makeOracleDevice();

function makeHead(V: number, D: number, options: { readonly isTrained?: boolean } = {}): Parameter {
  const { isTrained = true } = options;
  const head = Parameter.make(device, "lmHead", [V, D], { compute: "f64", master: "f64", isTrained });
  head.master.write(normals(V * D, 7));
  head.grad?.write(new Float64Array(V * D));
  head.repack();
  return head;
}

function close(actual: ArrayLike<number>, expected: ArrayLike<number>): boolean {
  return isWithin(distance(actual, expected), tolerances.oracle);
}

describe("linearCrossEntropy's reference", () => {
  test.for(linearCrossEntropyCases.filter(({ operands }) => operands["panels"]?.dtype === "f32"))(
    "equals the oracle in f64: $name",
    async (opCase) => {
      const { T, D, V, gradScale } = opCase.params as { T: number; D: number; V: number; gradScale: number };
      const { x, panels, targets, dw } = opCase.operands;
      const packed = panels?.values ?? [];
      const w = Array.from(
        { length: V * D },
        (_, i) => packed[panelIndex(Math.floor(i / D), i % D, D, "f32")]!,
      );
      const expected = headLossOracle(x?.values ?? [], w, targets?.values ?? [], { T, D, V, gradScale });
      const actual = await runCase(device, inF64(opCase));
      expect(close(actual["loss"]!, expected.loss)).toBe(true);
      expect([...actual["hits"]!]).toEqual(expected.hits);
      if (actual["dx"] !== undefined) expect(close(actual["dx"], expected.dx)).toBe(true);
      if (actual["dw"] !== undefined) {
        const sums = expected.dw.map((value, i) => value + (dw?.values?.[i] ?? 0));
        expect(close(actual["dw"], sums)).toBe(true);
      }
    },
  );

  test("counts two or six operations per weight and token, by whether gradients are made", () => {
    const sizes = { T: 3, D: 5, V: 7 };
    expect(linearCrossEntropyKernel.flops({ ...sizes, gradScale: 0 })).toBe(210);
    expect(linearCrossEntropyKernel.flops({ ...sizes, gradScale: 0.1 })).toBe(630);
  });
});

describe("linearCrossEntropy", () => {
  test("a head that knows nothing costs log V nats, and only ties of the lowest id hit", async () => {
    using _scope = device.scope();
    const head = makeHead(50, 4);
    head.master.write(new Float64Array(200));
    head.repack();
    const x = device.from(normals(12, 1), [3, 4], "f64");
    const { loss, hits } = linearCrossEntropy(x, head, device.from([0, 7, -1], [3], "i32"), 1);
    const nats = await loss.read();
    expect(nats[0]).toBeCloseTo(Math.log(50), 14);
    expect([...nats.subarray(1)]).toEqual([nats[0], 0]);
    expect([...(await hits.read())]).toEqual([1, 0, 0]);
  });

  test("logits far beyond the range of exp lose nothing", async () => {
    using _scope = device.scope();
    const head = makeHead(2, 1);
    head.master.write([1000, 999]);
    head.repack();
    const x = device.from([1, 2], [2, 1], "f64");
    const { loss } = linearCrossEntropy(x, head, device.from([1, 0], [2], "i32"), 1);
    const nats = await loss.read();
    expect(nats[0]).toBeCloseTo(1 + Math.log1p(Math.exp(-1)), 12);
    expect(nats[1]).toBeCloseTo(Math.log1p(Math.exp(-2)), 12);
  });

  test("its gradients are those of gradScale times the sum of losses, by central differences", async () => {
    const [T, D, V, gradScale] = [5, 4, 9, 0.37];
    const head = makeHead(V, D);
    const x = device.from(normals(T * D, 2), [T, D], "f64");
    const targets = device.from([3, -1, 8, 0, 3], [T], "i32");
    const weighted = async (): Promise<number> => {
      using _scope = device.scope();
      head.repack();
      const sum = reduceSum(linearCrossEntropy(x, head, targets, gradScale).loss, gradScale);
      return (await sum.read())[0]!;
    };
    const { dx, dw } = await gradients(x, head, targets, gradScale);
    expect(distance(dx, await numericGradient(x, weighted)).frobenius).toBeLessThan(1e-8);
    expect(distance(dw, await numericGradient(head.master, weighted)).frobenius).toBeLessThan(1e-8);
  });

  test("the seed of the loss is not looked at, the ops before it get the whole gradient", async () => {
    using _scope = device.scope();
    using tape = new Tape(device);
    const [head, before] = [makeHead(6, 4), makeHead(4, 3)];
    const x = device.from(normals(6, 3), [2, 3], "f64");
    const targets = device.from([1, 5], [2], "i32");
    const hidden: Tensor[] = [];
    const { loss } = device.withTape(tape, () => {
      hidden.push(linear(x, before, "f64"));
      return linearCrossEntropy(hidden[0]!, head, targets, 0.5);
    });
    tape.seed(loss, device.from([123, -7], [2], "f64"));
    tape.watch(x);
    tape.backward();
    const { dx } = await gradients(hidden[0]!, makeHead(6, 4), targets, 0.5);
    const w = await before.master.read();
    const expected = Array.from({ length: 6 }, (_, i) => {
      const [t, k] = [Math.floor(i / 3), i % 3];
      return [0, 1, 2, 3].reduce((sum, n) => sum + dx[t * 4 + n]! * w[n * 3 + k]!, 0);
    });
    expect(close(await tape.gradOf(x)!.read(), expected)).toBe(true);
  });

  test("adds to the head's gradient, so that micro-batches and MTP modules share a buffer", async () => {
    const head = makeHead(5, 3);
    const x = device.from(normals(6, 4), [2, 3], "f64");
    const targets = device.from([4, 0], [2], "i32");
    const once = (await gradients(x, head, targets, 1)).dw;
    const twice = (await gradients(x, head, targets, 1)).dw;
    expect(
      close(
        twice,
        [...once].map((g) => 2 * g),
      ),
    ).toBe(true);
  });

  test("without a tape no gradient is made and the workspace is given back", async () => {
    const head = makeHead(5, 3);
    const x = device.from(normals(6, 4), [2, 3], "f64");
    const targets = device.from([4, 0], [2], "i32");
    const live = device.arena.liveBytes;
    {
      using _scope = device.scope();
      linearCrossEntropy(x, head, targets, 1);
    }
    expect(device.arena.liveBytes).toBe(live);
    expect([...(await head.grad!.read())]).toEqual(new Array(15).fill(0));
  });

  test("a frozen head hands no gradient on", async () => {
    using _scope = device.scope();
    using tape = new Tape(device);
    const head = makeHead(5, 3, { isTrained: false });
    const x = device.from(normals(6, 4), [2, 3], "f64");
    const targets = device.from([4, 0], [2], "i32");
    const { loss } = device.withTape(tape, () => linearCrossEntropy(x, head, targets, 1));
    fill(loss, 1);
    tape.seed(loss, loss);
    tape.watch(x);
    tape.backward();
    expect(tape.gradOf(x)).toBeNull();
  });

  test("names the head and both shapes when the widths differ", () => {
    using _scope = device.scope();
    const head = makeHead(5, 3);
    const targets = device.from([4, 0], [2], "i32");
    const wide = device.from(normals(8, 4), [2, 4], "f64");
    expect(() => linearCrossEntropy(wide, head, targets, 1)).toThrow(ShapeError);
    expect(() => linearCrossEntropy(wide, head, targets, 1)).toThrow(
      /lmHead: x is \[2, 4\], it must be \[2, 3\]/,
    );
    const x = device.from(normals(9, 4), [3, 3], "f64");
    expect(() => linearCrossEntropy(x, head, targets, 1)).toThrow(/targets is \[2\], it must be \[3\]/);
    const floats = device.from([1, 1, 1], [3], "f64");
    expect(() => linearCrossEntropy(x, head, floats, 1)).toThrow(/targets is f64, it must be i32/);
  });

  test("a target outside the vocabulary fails at the read, with its number", async () => {
    const broken = makeOracleDevice();
    const head = Parameter.make(broken, "lmHead", [5, 1], {
      compute: "f64",
      master: "f64",
      isTrained: false,
    });
    head.master.write([1, 2, 3, 4, 5]);
    head.repack();
    const x = broken.from([1], [1, 1], "f64");
    const { loss } = linearCrossEntropy(x, head, broken.from([5], [1], "i32"), 1);
    await expect(loss.read()).rejects.toThrow(BackendError);
    await expect(loss.read()).rejects.toThrow(/target 5 lies in a vocabulary of 5/);
  });
});

/** Of gradScale times the sum of losses, by the op; the head's as its buffer holds it afterwards. */
async function gradients(x: Tensor, head: Parameter, targets: Tensor, gradScale: number) {
  using _scope = device.scope();
  using tape = new Tape(device);
  head.repack();
  const { loss } = device.withTape(tape, () => linearCrossEntropy(x, head, targets, gradScale));
  tape.watch(x);
  tape.seed(loss, loss);
  tape.backward();
  return { dx: await tape.gradOf(x)!.read(), dw: await head.grad!.read() };
}

async function numericGradient(tensor: Tensor, loss: () => Promise<number>): Promise<number[]> {
  const values = await tensor.read();
  const gradient: number[] = [];
  for (const [i, value] of values.entries()) {
    const at = async (shift: number): Promise<number> => {
      values[i] = value + shift;
      tensor.write(values);
      return loss();
    };
    const h = 1e-3;
    const near = (await at(h)) - (await at(-h));
    gradient.push((8 * near - ((await at(2 * h)) - (await at(-2 * h)))) / (12 * h));
    values[i] = value;
  }
  tensor.write(values);
  return gradient;
}
