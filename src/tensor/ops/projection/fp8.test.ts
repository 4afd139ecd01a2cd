import { afterAll, describe, expect, test } from "vitest";
import { normals } from "../../../../test/support/random.ts";
import { distance } from "../../../../test/support/tolerance.ts";
import { ReferenceBackend } from "../../backend/reference/reference.ts";
import { QueueDevice } from "../../device.ts";
import type { Fp8Format, TileFormat } from "../../fp8Format.ts";
import { Parameter } from "../../parameter.ts";
import type { Shape } from "../../shape.ts";
import { Tape } from "../../tape.ts";
import type { Tensor } from "../../tensor.ts";
import { add } from "../elementwise.ts";
import { Tiles } from "../fp8/tiles.ts";
import { linear } from "../linear.ts";
import { type DispatchPlan, planDispatch } from "../moe/dispatch.ts";
import { groupedLinear } from "../moe/groupedLinear.ts";
import { mixture } from "../moe/mixture.ts";
import type { Activation } from "./projection.ts";
import { inputOf } from "./projectionOf.ts";

const device = new QueueDevice(new ReferenceBackend(), 2 ** 30);
afterAll(() => device.dispose());

const tile: TileFormat = { dtype: "f8e4m3", powerOfTwo: false, floor: 1e-4, width: 1, scaling: "tile" };
const report: Fp8Format = {
  input: tile,
  gradient: { ...tile, floor: 0 },
  weight: { powerOfTwo: false, scaling: "tile" },
  saves: "tiles",
  promotion: 128,
  accumulatorBits: 0,
};
const tensorWise: Fp8Format = {
  ...report,
  input: { ...tile, scaling: "tensor" },
  gradient: { ...tile, floor: 0, scaling: "tensor" },
  weight: { powerOfTwo: false, scaling: "tensor" },
};

interface Products {
  readonly y: ArrayLike<number>;
  readonly dx: ArrayLike<number>;
  readonly dw: ArrayLike<number>;
}

interface Problem {
  readonly x: ArrayLike<number>;
  readonly xShape: Shape;
  readonly w: ArrayLike<number>;
  readonly wShape: Shape;
  readonly dy: ArrayLike<number>;
}

/** The three products of an op; null multiplies in f32. */
async function products(
  { x, xShape, w, wShape, dy }: Problem,
  format: Fp8Format | null,
  op: (x: Tensor, w: Parameter) => Tensor = (input, weight) => linear(input, weight, "f32"),
): Promise<Products> {
  using _scope = device.scope();
  const kind =
    format === null ? ({ compute: "f32" } as const) : ({ compute: "f8e4m3", fp8: format } as const);
  const weight = Parameter.make(device, "w", wShape, { ...kind, master: "f32", isTrained: true });
  weight.master.write(w);
  weight.grad!.write(new Float32Array(weight.size));
  weight.repack();
  using tape = new Tape(device);
  const input = device.from(x, xShape, "f32");
  const y = device.withTape(tape, () => op(input, weight));
  tape.watch(input);
  tape.seed(y, device.from(dy, y.shape, "f32"));
  tape.backward();
  const result = { y: await y.read(), dx: await tape.gradOf(input)!.read(), dw: await weight.grad!.read() };
  weight.dispose();
  return result;
}

function cosine(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [dot, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    dot += a[i]! * b[i]!;
    aa += a[i]! ** 2;
    bb += b[i]! ** 2;
  }
  return dot / Math.sqrt(aa * bb);
}

function problem(T: number, N: number, K: number): Problem {
  return {
    x: normals(T * K, 1),
    xShape: [T, K],
    w: normals(N * K, 2).map((value) => 0.05 * value),
    wShape: [N, K],
    dy: normals(T * N, 3).map((value) => 1e-4 * value),
  };
}

const shapes = [
  [3, 5, 7],
  [130, 72, 200],
  [256, 128, 128],
] as const;

describe("a projection in FP8", () => {
  test.each(shapes)("gives y, dx and dW of the f32 one but for rounding: %d x %d x %d", async (T, N, K) => {
    const [exact, fp8] = [await products(problem(T, N, K), null), await products(problem(T, N, K), report)];
    // Two operands of three fraction bits: 2.5 % each.
    for (const name of ["y", "dx", "dw"] as const) {
      expect(cosine(fp8[name], exact[name]), name).toBeGreaterThan(0.998);
      expect(distance(fp8[name], exact[name]).frobenius, name).toBeLessThan(0.06);
      expect(distance(fp8[name], exact[name]).frobenius, name).toBeGreaterThan(0.005);
    }
  });

  test("gives exactly the products of the numbers that its codes stand for", async () => {
    const [T, N, K] = [130, 40, 150];
    // Quarters up to 7, of which a code holds every one, and a 448 in each tile, which makes its scale 1.
    const quarters = (values: ArrayLike<number>): Float64Array =>
      Float64Array.from(values, (v) => Math.max(-7, Math.min(7, Math.round(2 * v) / 4)));
    const random = problem(T, N, K);
    const [x, w] = [quarters(random.x), quarters(normals(N * K, 2))];
    for (let t = 0; t < T; t++) for (const k of [0, 128]) x[t * K + k] = 448;
    for (const k of [0, 128]) w[k] = 448;
    const given = { ...random, x, w };
    const [exact, fp8] = [await products(given, null), await products(given, report)];
    expect(distance(fp8.y, exact.y).max).toBeLessThan(1e-6);
  });

  test("reads tiles that two projections share as it reads its own, and makes them once", async () => {
    const given = problem(64, 24, 40);
    const shared = async (share: boolean): Promise<Products & { readonly runs: number }> => {
      let runs = 0;
      const result = await products(given, report, (x, w) => {
        const { run } = device;
        device.run = (kernel, ...rest) => {
          if (kernel.name === "quantizeTiles") runs++;
          run.call(device, kernel, ...rest);
        };
        const input: Activation = share ? inputOf(x, w) : x;
        expect(input instanceof Tiles).toBe(share);
        linear(input, w, "f32");
        const y = linear(input, w, "f32");
        device.run = run;
        return y;
      });
      return { ...result, runs };
    };
    const [own, together] = [await shared(false), await shared(true)];
    expect([own.runs, together.runs]).toEqual([2, 1]);
    expect({ ...together, runs: 0 }).toEqual({ ...own, runs: 0 });
  });

  test("keeps one byte a number of its input, or nothing of it that another holds", async () => {
    const [T, N, K] = [64, 24, 256];
    const held = (saves: Fp8Format["saves"]): number => {
      const weight = Parameter.make(device, "w", [N, K], {
        compute: "f8e4m3",
        fp8: { ...report, saves },
        master: "f32",
        isTrained: true,
      });
      const before = device.arena.liveBytes;
      using tape = new Tape(device);
      {
        using _scope = device.scope();
        const x = device.empty([T, K], "bf16");
        device.withTape(tape, () => linear(x, weight, "bf16"));
      }
      const bytes = device.arena.liveBytes - before;
      tape[Symbol.dispose]();
      weight.dispose();
      return bytes;
    };
    expect(held("tiles")).toBe(T * K + T * 2 * 4);
    expect(held("input")).toBe(2 * T * K);
  });
});

describe("a tensor that two projections read", () => {
  const plan = (): DispatchPlan => planDispatch(device.from([0, 1, 1, 2, 0, 2, 0, 1], [4, 2], "i32"), 3, 3);
  const experts = (x: Tensor, w: Parameter): Tensor => groupedLinear(x, w, plan(), "f32");
  const plain = (x: Tensor, w: Parameter): Tensor => linear(x, w, "f32");
  const kinds = [
    ["f32", null, plain, [5, 7], 4 * 5],
    ["FP8", report, plain, [5, 7], 4 * 5],
    ["experts", null, experts, [3, 5, 7], 8 * 5],
  ] as const;

  test.each(kinds)(
    "gets the later one's gradient on top of the earlier one's, in one pass: %s",
    async (_, format, op, wShape, outputs) => {
      const given: Problem = {
        x: normals(28, 1),
        xShape: [4, 7],
        w: normals(
          wShape.reduce((size, dim) => size * dim, 1),
          2,
        ),
        wShape,
        dy: normals(outputs, 3),
      };
      const ran: string[] = [];
      const { run } = device;
      device.run = (kernel, ...rest) => {
        ran.push(kernel.name);
        run.call(device, kernel, ...rest);
      };
      try {
        const once = await products(given, format, op);
        ran.length = 0;
        const twice = await products(given, format, (x, w) => add(op(x, w), op(x, w)));
        // Twice a number is that number's bits at the next power of two: no tolerance.
        expect(Array.from(twice.dx)).toEqual(Array.from(once.dx, (value) => 2 * value));
        expect(ran.filter((name) => name === "add")).toHaveLength(1);
      } finally {
        device.run = run;
      }
    },
  );
});

describe("projections of experts in FP8", () => {
  const [T, topK, E, D, F] = [70, 2, 4, 144, 40];
  const plan = (): DispatchPlan => {
    // Expert 3 gets nothing; expert 0 more than one tile of 128 tokens would hold at T = 140.
    const ids = Array.from({ length: T }, (_, t) => [0, t % 3 === 0 ? 1 : 2]).flat();
    return planDispatch(device.from(ids, [T, topK], "i32"), E, E);
  };
  const given = {
    x: normals(T * D, 1),
    w: normals(E * F * D, 2),
    dy: normals(T * topK * F, 3).map((value) => 1e-3 * value),
  };

  test("gather, multiply and add up as in f32 but for rounding", async () => {
    const problemOfExperts = { ...given, xShape: [T, D], wShape: [E, F, D] };
    const op = (x: Tensor, w: Parameter): Tensor => groupedLinear(x, w, plan(), "f32");
    const [exact, fp8] = [
      await products(problemOfExperts, null, op),
      await products(problemOfExperts, report, op),
    ];
    for (const name of ["y", "dx", "dw"] as const) {
      expect(cosine(fp8[name], exact[name]), name).toBeGreaterThan(0.998);
    }
    const unused = Array.from(fp8.dw).slice(3 * F * D);
    expect(new Set(unused)).toEqual(new Set([0]));
  });

  test("weigh their answers and hand back gradients as in f32 but for rounding", async () => {
    const problemOfMixture = {
      x: normals(T * topK * F, 4),
      xShape: [T * topK, F],
      w: normals(E * D * F, 5),
      wShape: [E, D, F],
      dy: normals(T * D, 6).map((value) => 1e-3 * value),
    };
    const op = (hidden: Tensor, w: Parameter): Tensor => {
      const weights = device.from(
        normals(T * topK, 7).map((value) => 1 + 0.1 * value),
        [T, topK],
        "f32",
      );
      return mixture(hidden, w, plan(), weights, null, "f32");
    };
    const format: Fp8Format = {
      ...report,
      gradient: { ...report.gradient, powerOfTwo: true },
      saves: "input",
    };
    const [exact, fp8] = [
      await products(problemOfMixture, null, op),
      await products(problemOfMixture, format, op),
    ];
    for (const name of ["y", "dx", "dw"] as const) {
      expect(cosine(fp8[name], exact[name]), name).toBeGreaterThan(0.998);
    }
  });
});

describe("a planted outlier", () => {
  // One number of one token a million times as large as the others.
  const [T, N, K] = [128, 32, 512];
  const given = problem(T, N, K);
  const x = Float64Array.from(given.x);
  x[5 * K + 300] = 1e6;
  /** Rows of y but the outlier's own. */
  const others = (y: ArrayLike<number>): number[] => Array.from(y).filter((_, i) => Math.floor(i / N) !== 5);

  test("ruins every token where the tensor has one scale, and none but its own where tiles have theirs", async () => {
    const planted = { ...given, x };
    const exact = await products(planted, null);
    const [tiles, tensor] = [await products(planted, report), await products(planted, tensorWise)];
    expect(cosine(others(tiles.y), others(exact.y))).toBeGreaterThan(0.998);
    expect(distance(others(tensor.y), others(exact.y)).frobenius).toBeGreaterThan(0.9);
    // Without it a scale for the whole tensor is good enough.
    const [plain, even] = [await products(given, null), await products(given, tensorWise)];
    expect(cosine(even.y, plain.y)).toBeGreaterThan(0.998);
  });

  test("among the gradients leaves other tokens' alone in 1x128 tiles; in 128x128 blocks it does not", async () => {
    const dy = Float64Array.from(given.dy);
    dy[5 * N + 3] = 100;
    const planted = { ...given, dy };
    const wide: Fp8Format = { ...report, gradient: { ...report.gradient, width: 128 } };
    const exact = await products(planted, null);
    const [narrow, blocks] = [await products(planted, report), await products(planted, wide)];
    const rest = (dx: ArrayLike<number>): number[] =>
      Array.from(dx).filter((_, i) => Math.floor(i / K) !== 5);
    expect(cosine(rest(narrow.dx), rest(exact.dx))).toBeGreaterThan(0.998);
    expect(distance(rest(blocks.dx), rest(exact.dx)).frobenius).toBeGreaterThan(0.5);
  });

  test("in every batch leaves nothing to learn where the tensor has one scale; in tiles nearly all is learnt", async () => {
    // Ordinary regression, y = M x; the outlier's own token counts for nothing.
    const [tokens, outputs, inputs, rate] = [256, 8, 256, 0.4];
    const wanted = normals(outputs * inputs, 11);
    const remaining = async (format: Fp8Format): Promise<number> => {
      let w = new Float64Array(outputs * inputs);
      let last = Number.NaN;
      for (let step = 0; step < 8; step++) {
        const batch = normals(tokens * inputs, 20 + step);
        batch[5 * inputs + 7] = 1e7;
        const shapes = { xShape: [tokens, inputs], wShape: [outputs, inputs], w };
        const noGradient = new Float64Array(tokens * outputs);
        const { y } = await products({ ...shapes, x: batch, dy: noGradient }, format);
        const target = (t: number, n: number): number => {
          let sum = 0;
          for (let k = 0; k < inputs; k++) sum += batch[t * inputs + k]! * wanted[n * inputs + k]!;
          return sum;
        };
        const error = Float64Array.from(y, (value, i) => {
          const t = Math.floor(i / outputs);
          return t === 5 ? 0 : value - target(t, i % outputs);
        });
        last = error.reduce((sum, e) => sum + e * e, 0) / (tokens * outputs * inputs);
        const { dw } = await products({ ...shapes, x: batch, dy: error.map((e) => e / tokens) }, format);
        w = w.map((value, i) => value - rate * dw[i]!);
      }
      return last;
    };
    expect(await remaining(report)).toBeLessThan(0.1);
    expect(await remaining(tensorWise)).toBeGreaterThan(0.9);
  });
});
