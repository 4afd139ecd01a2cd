/**
 * Cases of the FP8 quantisers: ragged tiles (576 and 192 rows, one number), zeros, numbers from 1e-38 to 1e38,
 * NaN and infinity, groups of rows with gathers, codes as input, and each dtype. Natives give the reference's bits.
 */

import { tilesOf } from "../../../src/tensor/fp8.ts";
import { absMaxKernel } from "../../../src/tensor/ops/fp8/absMax.ts";
import { columnScaleRows, quantizeColumnsKernel } from "../../../src/tensor/ops/fp8/quantizeColumns.ts";
import { dequantizeTilesKernel, quantizeTilesKernel } from "../../../src/tensor/ops/fp8/quantizeTiles.ts";
import { quantizeWeightKernel } from "../../../src/tensor/ops/fp8/quantizeWeight.ts";
import { panelElements } from "../../../src/tensor/panels.ts";
import type { OpCase } from "../opCase.ts";
import { integers, makeRandom, normals } from "../random.ts";
import { offsetsOf } from "./grouped.ts";

type Float = "f32" | "bf16";
type Code = "f8e4m3" | "e5m6";

/** Of very different sizes, here and there a zero of either sign, a denormal, or what fits no format. */
export function wildNumbers(length: number, seed: number): Float64Array {
  const random = makeRandom(seed);
  return normals(length, seed).map((v) => {
    const kind = random();
    if (kind < 0.05) return v < 0 ? -0 : 0;
    if (kind < 0.06) return 1e-40;
    return v * 2 ** Math.floor((kind - 0.5) * 40);
  });
}

/** As `wildNumbers`, with a NaN and infinities strewn in. */
function spoiltNumbers(length: number, seed: number): Float64Array {
  const spoils = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  return wildNumbers(length, seed).map((v, i) => (i % 997 === 500 ? spoils[i % 3]! : v));
}

function tilesCase(
  name: string,
  [R, K]: readonly [number, number],
  { x, codes, values }: { readonly x: Float; readonly codes: Code; readonly values: ArrayLike<number> },
  rule: { readonly powerOfTwo: 0 | 1; readonly floor: number; readonly rowsPerTile?: number },
  amax: number | null = null,
): OpCase {
  const how = `${rule.powerOfTwo === 1 ? "powers of two" : "plain scales"}, floor ${rule.floor}`;
  return {
    name: `${name}: [${R}, ${K}], ${x} -> ${codes}, ${how}`,
    kernel: quantizeTilesKernel,
    operands: {
      x: { shape: [R, K], dtype: x, values },
      amax: amax === null ? null : { shape: [1], dtype: "f32", values: [amax] },
      codes: { shape: [R, K], dtype: codes },
      scales: { shape: [R, tilesOf(K)], dtype: "f32" },
    },
    params: { R, K, rowsPerTile: 1, ...rule },
    tolerance: "exact",
  };
}

const plain = { powerOfTwo: 0, floor: 1e-4 } as const;
const power = { powerOfTwo: 1, floor: 1e-4 } as const;
const unfloored = { powerOfTwo: 0, floor: 0 } as const;
const e4m3 = (x: Float, values: ArrayLike<number>) => ({ x, codes: "f8e4m3" as const, values });
const e5m6 = (x: Float, values: ArrayLike<number>) => ({ x, codes: "e5m6" as const, values });

/** The first `count` rows only. */
function counted(all: OpCase, count: number): OpCase {
  const operands = { ...all.operands, count: { shape: [1], dtype: "i32", values: [count] } as const };
  return { ...all, name: `${all.name}, ${count} rows there`, operands };
}

const tilesCases: readonly OpCase[] = [
  counted(tilesCase("ragged", [5, 300], e4m3("bf16", spoiltNumbers(1500, 16)), plain), 3),
  tilesCase("one number", [1, 1], e4m3("f32", [0.3]), plain),
  tilesCase("no row", [0, 128], e4m3("f32", []), plain),
  tilesCase("ragged", [5, 300], e4m3("f32", wildNumbers(1500, 1)), plain),
  tilesCase("ragged", [5, 300], e4m3("bf16", wildNumbers(1500, 2)), power),
  tilesCase("whole tiles", [33, 256], e4m3("bf16", normals(33 * 256, 3)), plain),
  tilesCase("several tasks", [300, 384], e4m3("f32", wildNumbers(300 * 384, 4)), power),
  tilesCase("zeros", [3, 200], e4m3("f32", new Float64Array(600)), plain),
  tilesCase("zeros", [3, 200], e4m3("f32", new Float64Array(600)), unfloored),
  tilesCase("spoilt", [20, 576], e4m3("f32", spoiltNumbers(20 * 576, 5)), plain),
  tilesCase("spoilt", [20, 576], e5m6("bf16", spoiltNumbers(20 * 576, 6)), power),
  tilesCase("ragged", [7, 194], e5m6("f32", wildNumbers(7 * 194, 7)), power),
  tilesCase("whole tiles", [16, 512], e5m6("bf16", normals(16 * 512, 8)), plain),
  tilesCase("tiny numbers", [4, 128], e4m3("f32", normals(512, 9, 1e-30)), unfloored),
  tilesCase("huge numbers", [4, 128], e4m3("f32", normals(512, 10, 5e37)), power),
  tilesCase("blocks of rows", [200, 300], e4m3("bf16", wildNumbers(60000, 11)), {
    ...plain,
    rowsPerTile: 128,
  }),
  tilesCase("blocks of rows", [130, 66], e5m6("f32", spoiltNumbers(130 * 66, 12)), {
    ...power,
    rowsPerTile: 128,
  }),
  tilesCase("a maximum for all", [9, 140], e4m3("f32", wildNumbers(1260, 13)), plain, 3),
  tilesCase("a maximum for all, numbers beyond it", [9, 140], e4m3("f32", spoiltNumbers(1260, 14)), plain, 3),
  tilesCase("a maximum that is NaN", [2, 140], e4m3("f32", normals(280, 15)), plain, Number.NaN),
];

function dequantizeCase([R, K]: readonly [number, number], codes: Code, y: Float): OpCase {
  return {
    name: `[${R}, ${K}], ${codes} -> ${y}`,
    kernel: dequantizeTilesKernel,
    operands: {
      codes: { shape: [R, K], dtype: codes, values: spoiltNumbers(R * K, 21) },
      scales: {
        shape: [R, tilesOf(K)],
        dtype: "f32",
        values: normals(R * tilesOf(K), 22).map((v) => Math.exp(v)),
      },
      y: { shape: [R, K], dtype: y },
    },
    params: { R, K },
    tolerance: "exact",
  };
}

interface ColumnShape {
  readonly rowsOf: readonly number[];
  readonly K: number;
  /** Rows of x that a gather draws from; absent: rows in order. */
  readonly Tx?: number;
}

function columnsCase(
  name: string,
  { rowsOf, K, Tx }: ColumnShape,
  x: Float | Code,
  values: (length: number) => ArrayLike<number>,
  rule: { readonly powerOfTwo: 0 | 1; readonly floor: number; readonly columnsPerTile?: number },
  amax: number | null = null,
): OpCase {
  const offsets = offsetsOf(rowsOf);
  const [R, G] = [offsets.at(-1)!, rowsOf.length];
  const isCoded = x === "f8e4m3" || x === "e5m6";
  const rows = Tx ?? R;
  const scaleValues = normals(rows * tilesOf(K), 31).map((v) => Math.exp(v));
  return {
    name: `${name}: groups of ${rowsOf.join(", ")} rows, ${K} columns, ${x}`,
    kernel: quantizeColumnsKernel,
    operands: {
      x: { shape: [rows, K], dtype: x, values: values(rows * K) },
      xScales: isCoded ? { shape: [rows, tilesOf(K)], dtype: "f32", values: scaleValues } : null,
      rows: Tx === undefined ? null : { shape: [R], dtype: "i32", values: integers(R, Tx, 32) },
      offsets: G === 1 ? null : { shape: [G + 1], dtype: "i32", values: offsets },
      amax: amax === null ? null : { shape: [1], dtype: "f32", values: [amax] },
      codes: { shape: [R, K], dtype: "f8e4m3" },
      scales: { shape: [columnScaleRows(R, G), K], dtype: "f32" },
    },
    params: { R, K, G, columnsPerTile: 1, ...rule },
    tolerance: "exact",
  };
}

const wild = (seed: number) => (length: number) => wildNumbers(length, seed);
const spoilt = (seed: number) => (length: number) => spoiltNumbers(length, seed);

const columnsCases: readonly OpCase[] = [
  columnsCase("one number", { rowsOf: [1], K: 1 }, "f32", wild(33), plain),
  columnsCase("no row", { rowsOf: [0], K: 40 }, "bf16", wild(33), plain),
  columnsCase("ragged rows", { rowsOf: [576], K: 192 }, "f32", wild(34), unfloored),
  columnsCase("ragged rows", { rowsOf: [192], K: 130 }, "bf16", spoilt(35), power),
  columnsCase("groups", { rowsOf: [3, 0, 128, 129, 0, 300], K: 70 }, "bf16", wild(36), unfloored),
  columnsCase("gathered", { rowsOf: [30, 0, 140], K: 200, Tx: 64 }, "f32", spoilt(37), power),
  columnsCase("cached codes", { rowsOf: [200], K: 256 }, "f8e4m3", wild(38), power),
  columnsCase("cached codes", { rowsOf: [100, 60, 1], K: 300, Tx: 50 }, "f8e4m3", spoilt(39), plain),
  columnsCase("cached codes", { rowsOf: [129], K: 194 }, "e5m6", spoilt(40), power),
  columnsCase("blocks of columns", { rowsOf: [150, 20], K: 300 }, "f32", wild(41), {
    ...plain,
    columnsPerTile: 128,
  }),
  columnsCase("a maximum for all", { rowsOf: [140], K: 20 }, "f32", wild(42), plain, 7),
];

function weightCase(
  [B, N, K]: readonly [number, number, number],
  master: Float,
  values: ArrayLike<number>,
  powerOfTwo: 0 | 1,
  isTransposedToo: boolean = true,
  amax: number | null = null,
): OpCase {
  return {
    name: `${B} x [${N}, ${K}], ${master}${isTransposedToo ? ", both ways" : ""}${amax === null ? "" : ", a maximum for all"}`,
    kernel: quantizeWeightKernel,
    operands: {
      master: { shape: [B, N, K], dtype: master, values },
      amax: amax === null ? null : { shape: [1], dtype: "f32", values: [amax] },
      panels: { shape: [B, panelElements(N, K)], dtype: "f8e4m3" },
      panelsT: isTransposedToo ? { shape: [B, panelElements(K, N)], dtype: "f8e4m3" } : null,
      scales: { shape: [B, tilesOf(N), tilesOf(K)], dtype: "f32" },
    },
    params: { B, N, K, powerOfTwo },
    tolerance: "exact",
  };
}

function absMaxCase(name: string, x: Float, values: ArrayLike<number>): OpCase {
  return {
    name: `${name}, ${x}`,
    kernel: absMaxKernel,
    operands: {
      x: { shape: [values.length], dtype: x, values },
      y: { shape: [1], dtype: "f32" },
    },
    params: { n: values.length },
    tolerance: "exact",
  };
}

export const quantizeCases: readonly OpCase[] = [
  ...tilesCases,
  counted(dequantizeCase([6, 140], "f8e4m3", "bf16"), 4),
  dequantizeCase([1, 1], "f8e4m3", "f32"),
  dequantizeCase([11, 300], "f8e4m3", "bf16"),
  dequantizeCase([300, 256], "f8e4m3", "f32"),
  dequantizeCase([11, 322], "e5m6", "bf16"),
  dequantizeCase([3, 128], "e5m6", "f32"),
  ...columnsCases,
  weightCase([1, 1, 1], "f32", [-0.7], 0),
  weightCase([1, 576, 100], "f32", wildNumbers(57600, 51), 0),
  weightCase([1, 192, 257], "f32", normals(192 * 257, 52, 0.02), 1),
  weightCase([3, 40, 33], "bf16", wildNumbers(3960, 53), 0),
  weightCase([2, 130, 129], "f32", spoiltNumbers(2 * 130 * 129, 54), 0, false),
  weightCase([1, 128, 256], "f32", new Float64Array(128 * 256), 0),
  weightCase([1, 100, 140], "f32", normals(14000, 55), 0, true, 2),
  absMaxCase("no number", "f32", []),
  absMaxCase("odd length", "bf16", wildNumbers(70001, 61)),
  absMaxCase("denormals only", "f32", [1e-40, -3e-40]),
  absMaxCase("NaN somewhere", "f32", spoiltNumbers(70001, 62)),
];
