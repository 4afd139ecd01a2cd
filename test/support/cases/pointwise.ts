/**
 * Cases of the pointwise kernels: widths that are no multiple of a vector, single tokens and none, chunks of
 * gain gradients that end early, absent operands, and each storage dtype on each operand.
 */

import { addRmsNormBackwardKernel, addRmsNormKernel } from "../../../src/tensor/ops/addRmsNorm.ts";
import {
  addCountsKernel,
  addKernel,
  axpyKernel,
  castKernel,
  copyKernel,
  copyRowKernel,
  fillKernel,
  scaleKernel,
} from "../../../src/tensor/ops/elementwise.ts";
import { embeddingGradKernel, embeddingKernel } from "../../../src/tensor/ops/embedding.ts";
import { latentKvBackwardKernel, latentKvKernel } from "../../../src/tensor/ops/latentKv.ts";
import { mtpInputBackwardKernel, mtpInputKernel } from "../../../src/tensor/ops/mtpInput.ts";
import { randomNormalKernel } from "../../../src/tensor/ops/random.ts";
import { ropeKernel } from "../../../src/tensor/ops/rope.ts";
import { swigluBackwardKernel, swigluKernel } from "../../../src/tensor/ops/swiglu.ts";
import type { CaseOperand, OpCase } from "../opCase.ts";
import { integers, normals } from "../random.ts";
import type { ToleranceClass } from "../tolerance.ts";

type Float = "f32" | "bf16";

function given(shape: readonly number[], dtype: Float, seed: number, mean: number = 0): CaseOperand {
  const size = shape.reduce((product, dim) => product * dim, 1);
  return { shape, dtype, values: normals(size, seed, 1, mean) };
}

function wanted(shape: readonly number[], dtype: Float): CaseOperand {
  return { shape, dtype };
}

function ids(values: ArrayLike<number>): CaseOperand {
  return { shape: [values.length], dtype: "i32", values };
}

/** Inverse root mean squares as a forward pass would have left them: any positive numbers do. */
function scales(shape: readonly number[], seed: number): CaseOperand {
  const operand = given(shape, "f32", seed);
  return { ...operand, values: Array.from(operand.values ?? [], (v) => Math.exp(v / 4)) };
}

function table(P: number, half: number): { readonly cos: CaseOperand; readonly sin: CaseOperand } {
  const angles = Array.from(
    { length: P * half },
    (_, i) => Math.floor(i / half) * 100 ** (-(i % half) / half),
  );
  return {
    cos: { shape: [P, half], dtype: "f32", values: angles.map(Math.cos) },
    sin: { shape: [P, half], dtype: "f32", values: angles.map(Math.sin) },
  };
}

/** Two sequences one after the other: positions start anew. */
function positions(T: number, P: number): CaseOperand {
  return ids(Array.from({ length: T }, (_, t) => (t < T / 2 ? t : t - Math.ceil(T / 2)) % P));
}

const DTYPES: readonly Float[] = ["f32", "bf16"];
const pairs: readonly (readonly [Float, Float])[] = DTYPES.flatMap((a) => DTYPES.map((b) => [a, b] as const));
const rounding = (dtype: Float): ToleranceClass => dtype;

const elementwise: readonly OpCase[] = [
  ...DTYPES.flatMap((dtype): OpCase[] => [
    {
      name: `fill ${dtype}`,
      kernel: fillKernel,
      operands: { y: wanted([131], dtype) },
      params: { n: 131, value: 0.1 },
      tolerance: "exact",
    },
    {
      name: `copy ${dtype}, more than one task`,
      kernel: copyKernel,
      operands: { x: given([70_001], dtype, 1), y: wanted([70_001], dtype) },
      params: { n: 70_001 },
      tolerance: "exact",
    },
    {
      name: `scale ${dtype}`,
      kernel: scaleKernel,
      operands: { y: given([77], dtype, 2) },
      params: { n: 77, alpha: -0.25 },
      tolerance: "exact",
    },
  ]),
  {
    name: "copy of integers",
    kernel: copyKernel,
    operands: { x: ids(integers(33, 1 << 30, 3)), y: { shape: [33], dtype: "i32" } },
    params: { n: 33 },
    tolerance: "exact",
  },
  ...([0, 4] as const).map(
    (row): OpCase => ({
      name: `row ${row} of five`,
      kernel: copyRowKernel,
      operands: { x: given([7], "f32", 1), table: given([5, 7], "f32", 2) },
      params: { n: 7, row },
      tolerance: "exact",
    }),
  ),
  {
    name: "counts beyond what f32 holds exactly",
    kernel: addCountsKernel,
    operands: { x: ids(integers(33, 1 << 29, 3)), y: ids(integers(33, 1 << 29, 4)) },
    params: { n: 33 },
    tolerance: "exact",
  },
  ...pairs.flatMap(([from, to]): OpCase[] => [
    {
      name: `cast ${from} to ${to}`,
      kernel: castKernel,
      operands: { x: given([1025], from, 4), y: wanted([1025], to) },
      params: { n: 1025 },
      tolerance: "exact",
    },
    {
      name: `axpy ${from} into ${to}`,
      kernel: axpyKernel,
      operands: { x: given([301], from, 5), y: given([301], to, 6) },
      params: { n: 301, alpha: 0.3 },
      tolerance: rounding(to),
    },
    ...DTYPES.map(
      (sum): OpCase => ({
        name: `add ${from} and ${to} into ${sum}`,
        kernel: addKernel,
        operands: { a: given([65], from, 7), b: given([65], to, 8), y: wanted([65], sum) },
        params: { n: 65 },
        tolerance: rounding(sum),
      }),
    ),
  ]),
  {
    name: "scale of nothing",
    kernel: scaleKernel,
    operands: { y: given([0], "f32", 9) },
    params: { n: 0, alpha: 2 },
    tolerance: "exact",
  },
];

interface NormSize {
  readonly T: number;
  readonly D: number;
}

const NORM_SIZES: readonly NormSize[] = [
  { T: 1, D: 1 },
  { T: 3, D: 37 },
  { T: 65, D: 64 },
  { T: 130, D: 100 },
  { T: 5, D: 1030 },
  { T: 0, D: 16 },
];

const rmsNormCases: readonly OpCase[] = NORM_SIZES.flatMap(({ T, D }, i) => [
  normCase(T, D, i, "f32", null, "f32"),
  normCase(T, D, i, "f32", "bf16", "bf16"),
  normCase(T, D, i, "bf16", "f32", "f32"),
  normBackwardCase(T, D, i, ["f32", "f32", "f32"], null),
  normBackwardCase(T, D, i, ["bf16", "f32", "f32"], "f32"),
  normBackwardCase(T, D, i, ["f32", "bf16", "bf16"], "bf16"),
]);

function normCase(T: number, D: number, seed: number, x: Float, delta: Float | null, y: Float): OpCase {
  return {
    name: `[${T}, ${D}] ${x}${delta === null ? ", nothing added" : ` + ${delta}`} to ${y}`,
    kernel: addRmsNormKernel,
    operands: {
      x: given([T, D], x, seed, 0.5),
      delta: delta === null ? null : given([T, D], delta, seed + 10),
      gain: given([D], "f32", seed + 20, 1),
      sum: delta === null ? null : wanted([T, D], x),
      y: wanted([T, D], y),
      rstd: wanted([T], "f32"),
    },
    params: { T, D, eps: 1e-6 },
    tolerance: { sum: x, y, rstd: "f32" },
  };
}

function normBackwardCase(
  T: number,
  D: number,
  seed: number,
  [dy, s, dx]: readonly [Float, Float, Float],
  dsum: Float | null,
): OpCase {
  return {
    name: `[${T}, ${D}] dy ${dy}, s ${s}, dsum ${dsum ?? "absent"} to ${dx}`,
    kernel: addRmsNormBackwardKernel,
    operands: {
      dy: given([T, D], dy, seed + 30),
      dsum: dsum === null ? null : given([T, D], dsum, seed + 40),
      s: given([T, D], s, seed + 50, 0.5),
      gain: given([D], "f32", seed + 60, 1),
      rstd: scales([T], seed + 70),
      dx: wanted([T, D], dx),
      dgain: given([D], "f32", seed + 80),
      workspace: wanted([Math.ceil(T / 64), D], "f32"),
    },
    params: { T, D },
    tolerance: { dx, dgain: "f32" },
    scratch: ["workspace"],
  };
}

const swigluCases: readonly OpCase[] = [
  { R: 1, F: 1 },
  { R: 7, F: 40 },
  { R: 300, F: 129 },
].flatMap(({ R, F }, i) =>
  pairs.flatMap(([x, y]): OpCase[] => [
    {
      name: `[${R}, ${2 * F}] ${x} to ${y}`,
      kernel: swigluKernel,
      operands: { x: wide([R, 2 * F], x, i), y: wanted([R, F], y) },
      params: { R, F },
      tolerance: rounding(y),
    },
    {
      name: `[${R}, ${2 * F}] ${x}, dy ${y}`,
      kernel: swigluBackwardKernel,
      operands: { dy: given([R, F], y, i + 5), x: wide([R, 2 * F], x, i), dx: wanted([R, 2 * F], x) },
      params: { R, F },
      tolerance: rounding(x),
    },
  ]),
);

/** Wide enough that sigmoids saturate on both sides. */
function wide(shape: readonly number[], dtype: Float, seed: number): CaseOperand {
  const operand = given(shape, dtype, seed);
  return { ...operand, values: Array.from(operand.values ?? [], (v) => 8 * v ** 3) };
}

const ropeCases: readonly OpCase[] = [
  { T: 1, heads: 1, stride: 2, offset: 0, R: 2 },
  { T: 9, heads: 3, stride: 24, offset: 16, R: 8 },
  { T: 70, heads: 4, stride: 48, offset: 32, R: 16 },
  { T: 5, heads: 2, stride: 75, offset: 3, R: 70 },
].flatMap(({ T, heads, stride, offset, R }, i) =>
  pairs.flatMap(([x, y]) =>
    [1, -1].map(
      (direction): OpCase => ({
        name: `[${T}, ${heads} x ${stride}] ${R} channels from ${offset}, ${x} to ${y}, direction ${direction}`,
        kernel: ropeKernel,
        operands: {
          x: given([T, heads * stride], x, i),
          ...table(40, R / 2),
          positions: positions(T, 40),
          y: wanted([T, heads * stride], y),
        },
        params: { T, heads, stride, offset, R, direction },
        tolerance: rounding(y),
      }),
    ),
  ),
);

const latentKvCases: readonly OpCase[] = [
  { T: 1, C: 3, R: 2 },
  { T: 67, C: 32, R: 8 },
  { T: 129, C: 70, R: 18 },
].flatMap(({ T, C, R }, i) =>
  pairs.flatMap(([x, y]): OpCase[] => [
    {
      name: `[${T}, ${C} + ${R}] ${x} to ${y}`,
      kernel: latentKvKernel,
      operands: {
        kvA: given([T, C + R], x, i),
        gain: given([C], "f32", i + 5, 1),
        ...table(80, R / 2),
        positions: positions(T, 80),
        latent: wanted([T, C], y),
        kRope: wanted([T, R], y),
        rstd: wanted([T], "f32"),
      },
      params: { T, C, R, eps: 1e-5 },
      tolerance: { latent: y, kRope: y, rstd: "f32" },
    },
    {
      name: `[${T}, ${C} + ${R}] ${x}, gradients ${y}`,
      kernel: latentKvBackwardKernel,
      operands: {
        dLatent: given([T, C], y, i + 10),
        dkRope: given([T, R], y, i + 15),
        kvA: given([T, C + R], x, i),
        gain: given([C], "f32", i + 5, 1),
        rstd: scales([T], i + 20),
        ...table(80, R / 2),
        positions: positions(T, 80),
        dkvA: wanted([T, C + R], x),
        dgain: given([C], "f32", i + 25),
        workspace: wanted([Math.ceil(T / 64), C], "f32"),
      },
      params: { T, C, R },
      tolerance: { dkvA: x, dgain: "f32" },
      scratch: ["workspace"],
    },
  ]),
);

/** Common tokens come often, as in text: squares of uniform numbers crowd the low ids. */
function textIds(T: number, V: number, seed: number): CaseOperand {
  return ids(Array.from(integers(T, 1000, seed), (u) => Math.floor((u / 1000) ** 3 * V)));
}

const embeddingCases: readonly OpCase[] = [
  { T: 1, D: 1, V: 1 },
  { T: 50, D: 37, V: 20 },
  { T: 333, D: 64, V: 700 },
].flatMap(({ T, D, V }, i) =>
  DTYPES.flatMap((dtype): OpCase[] => [
    ...[0, 1].map(
      (round): OpCase => ({
        name: `${T} tokens of [${V}, ${D}] to ${dtype}, round ${round}`,
        kernel: embeddingKernel,
        operands: { ids: textIds(T, V, i), table: given([V, D], "f32", i), y: wanted([T, D], dtype) },
        params: { T, D, V, round },
        tolerance: "exact",
      }),
    ),
    {
      name: `${T} tokens into [${V}, ${D}], dy ${dtype}`,
      kernel: embeddingGradKernel,
      operands: {
        ids: textIds(T, V, i),
        dy: given([T, D], dtype, i + 5),
        dtable: given([V, D], "f32", i + 10),
        workspace: { shape: [T + V + 1], dtype: "i32" },
      },
      params: { T, D, V },
      tolerance: "f32",
      scratch: ["workspace"],
    },
  ]),
);

const mtpInputCases: readonly OpCase[] = [
  { T: 1, D: 5 },
  { T: 66, D: 48 },
  { T: 4, D: 200 },
].flatMap(({ T, D }, i) =>
  pairs.flatMap(([x, z]): OpCase[] => [
    {
      name: `[${T}, ${D}] e ${x}, h f32 to ${z}`,
      kernel: mtpInputKernel,
      operands: {
        e: given([T, D], x, i),
        h: given([T, D], "f32", i + 5, 0.5),
        eGain: given([D], "f32", i + 10, 1),
        hGain: given([D], "f32", i + 15, 1),
        z: wanted([T, 2 * D], z),
        rstd: wanted([T, 2], "f32"),
      },
      params: { T, D, eps: 1e-6 },
      tolerance: { z, rstd: "f32" },
    },
    {
      name: `[${T}, ${D}] e ${x}, h f32, dz ${z}`,
      kernel: mtpInputBackwardKernel,
      operands: {
        dz: given([T, 2 * D], z, i + 20),
        e: given([T, D], x, i),
        h: given([T, D], "f32", i + 5, 0.5),
        eGain: given([D], "f32", i + 10, 1),
        hGain: given([D], "f32", i + 15, 1),
        rstd: scales([T, 2], i + 25),
        de: wanted([T, D], x),
        dh: wanted([T, D], "f32"),
        deGain: given([D], "f32", i + 30),
        dhGain: given([D], "f32", i + 35),
        workspace: wanted([Math.ceil(T / 64), 2 * D], "f32"),
      },
      params: { T, D },
      tolerance: { de: x, dh: "f32", deGain: "f32", dhGain: "f32" },
      scratch: ["workspace"],
    },
  ]),
);

/** Bit for bit: both sides compute in doubles, in the same order. */
const randomCases: readonly OpCase[] = DTYPES.map((dtype) => ({
  name: `9001 numbers in ${dtype}, seed and stream beyond 32 bits`,
  kernel: randomNormalKernel,
  operands: { y: wanted([9001], dtype) },
  params: { n: 9001, std: 0.02, seed: 2 ** 40 + 3, stream: 2 ** 33 + 1 },
  tolerance: "exact",
}));

export const pointwiseCases: readonly OpCase[] = [
  ...elementwise,
  ...rmsNormCases,
  ...swigluCases,
  ...ropeCases,
  ...latentKvCases,
  ...embeddingCases,
  ...mtpInputCases,
];

export { randomCases };
