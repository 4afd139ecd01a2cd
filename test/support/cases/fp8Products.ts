/**
 * Cases of the FP8 products: ragged tiles, gathered rows, empty experts, every block length, sums in 14 bits.
 *
 * What no valid output may read is NaN: padding of the panels, rows that nobody asks for, rows of scales that no tile owns.
 */
import { tilesOf } from "../../../src/tensor/fp8.ts";
import {
  fp8GradWeightKernel,
  fp8GroupedGradWeightKernel,
} from "../../../src/tensor/ops/fp8/fp8GradWeight.ts";
import { fp8GroupedMatmulKernel, fp8MatmulKernel } from "../../../src/tensor/ops/fp8/fp8Matmul.ts";
import { columnScaleRows, columnTiles } from "../../../src/tensor/ops/fp8/quantizeColumns.ts";
import { panelElements, panelIndex } from "../../../src/tensor/panels.ts";
import type { CaseOperand, OpCase } from "../opCase.ts";
import { integers, makeRandom, normals } from "../random.ts";
import type { ToleranceClass } from "../tolerance.ts";

interface Settings {
  readonly y: "f32" | "bf16";
  /** Of y's dtype. */
  readonly addend: boolean;
  readonly transposed: 0 | 1;
  readonly promotion: number;
  readonly accumulatorBits: 0 | 14;
}

const plain: Settings = { y: "f32", addend: false, transposed: 0, promotion: 128, accumulatorBits: 0 };

function codes(shape: readonly number[], seed: number): CaseOperand {
  const size = shape.reduce((product, dim) => product * dim, 1);
  return { shape, dtype: "f8e4m3", values: normals(size, seed, 60) };
}

/** Positive, over two powers of ten. */
function scales(shape: readonly number[], seed: number): CaseOperand {
  const random = makeRandom(seed);
  const size = shape.reduce((product, dim) => product * dim, 1);
  const values = Float32Array.from({ length: size }, () => 10 ** (-4 + 2 * random()));
  return { shape, dtype: "f32", values };
}

function panels(E: number, N: number, K: number): CaseOperand {
  const values = new Float64Array(E * panelElements(N, K)).fill(Number.NaN);
  const weights = normals(E * N * K, 93, 60);
  for (let i = 0; i < weights.length; i++) {
    const [e, n, k] = [Math.floor(i / (N * K)), Math.floor(i / K) % N, i % K];
    values[e * panelElements(N, K) + panelIndex(n, k, K, "f8e4m3")] = weights[i]!;
  }
  return { shape: [E, panelElements(N, K)], dtype: "f8e4m3", values };
}

function toleranceOf({ y, accumulatorBits }: Settings): ToleranceClass {
  if (accumulatorBits === 14) return "exact";
  return y === "bf16" ? "bf16" : "f32Long";
}

function matmulCase(name: string, M: number, N: number, K: number, changes: Partial<Settings> = {}): OpCase {
  const settings = { ...plain, ...changes };
  const { y, addend, ...params } = settings;
  const blocks = params.transposed === 1 ? [tilesOf(K), tilesOf(N)] : [tilesOf(N), tilesOf(K)];
  return {
    name: `${name}: [${M}, ${K}] @ [${N}, ${K}]^T`,
    kernel: fp8MatmulKernel,
    operands: {
      x: codes([M, K], 91),
      xScales: scales([M, tilesOf(K)], 92),
      panels: panels(1, N, K),
      wScales: scales(blocks, 94),
      addend: addend ? { shape: [M, N], dtype: y, values: normals(M * N, 88) } : null,
      y: { shape: [M, N], dtype: y },
    },
    params: { M, N, K, ...params },
    tolerance: toleranceOf(settings),
  };
}

function offsetsOf(rowsOf: readonly number[]): number[] {
  const offsets = [0];
  for (const rows of rowsOf) offsets.push(offsets.at(-1)! + rows);
  return offsets;
}

/** x and its scales with NaN in every row that is not asked for. */
function onlyRows(operand: CaseOperand, rows: Int32Array): CaseOperand {
  const width = operand.shape[1]!;
  const asked = new Set(rows);
  const values = Float64Array.from(operand.values!, (value, i) =>
    asked.has(Math.floor(i / width)) ? value : Number.NaN,
  );
  return { ...operand, values };
}

function groupedCase(
  name: string,
  rowsOf: readonly number[],
  [Tx, N, K]: readonly [number, number, number],
  changes: Partial<Settings> & { readonly gather: boolean },
): OpCase {
  const { gather, ...rest } = changes;
  const settings = { ...plain, ...rest };
  const { y, addend: _, ...params } = settings;
  const offsets = offsetsOf(rowsOf);
  const [E, R] = [rowsOf.length, offsets.at(-1)!];
  const rows = gather ? integers(R, Tx, 95) : Int32Array.from({ length: R }, (_, r) => r);
  return {
    name,
    kernel: fp8GroupedMatmulKernel,
    operands: {
      x: onlyRows(codes([Tx, K], 91), rows),
      xScales: onlyRows(scales([Tx, tilesOf(K)], 92), rows),
      rows: gather ? { shape: [R], dtype: "i32", values: rows } : null,
      offsets: { shape: [E + 1], dtype: "i32", values: offsets },
      panels: panels(E, N, K),
      wScales: scales([E, tilesOf(N) * tilesOf(K)], 94),
      y: { shape: [R, N], dtype: y },
    },
    params: { R, N, K, E, ...params },
    tolerance: toleranceOf(settings),
  };
}

function gradCase(name: string, T: number, N: number, K: number, changes: Partial<Settings> = {}): OpCase {
  const { promotion, accumulatorBits } = { ...plain, ...changes };
  return {
    name: `${name}: ${T} tokens, [${N}, ${K}]`,
    kernel: fp8GradWeightKernel,
    operands: {
      dy: codes([T, N], 96),
      dyScales: scales([tilesOf(T), N], 97),
      x: codes([T, K], 98),
      xScales: scales([tilesOf(T), K], 99),
      dw: { shape: [N, K], dtype: "f32", values: normals(N * K, 90) },
    },
    params: { T, N, K, promotion, accumulatorBits },
    tolerance: toleranceOf({ ...plain, accumulatorBits }),
  };
}

/** Scales of groups as quantizeColumns lays them out, NaN in rows that no tile owns. */
function groupScales(offsets: readonly number[], width: number, seed: number): CaseOperand {
  const E = offsets.length - 1;
  const all = scales([columnScaleRows(offsets.at(-1)!, E), width], seed);
  const owned = new Set(columnTiles(offsets, E).map(({ scaleRow }) => scaleRow));
  return {
    ...all,
    values: Float64Array.from(all.values!, (value, i) =>
      owned.has(Math.floor(i / width)) ? value : Number.NaN,
    ),
  };
}

function groupedGradCase(
  name: string,
  rowsOf: readonly number[],
  [N, K]: readonly [number, number],
  changes: Partial<Settings> = {},
): OpCase {
  const { promotion, accumulatorBits } = { ...plain, ...changes };
  const offsets = offsetsOf(rowsOf);
  const [E, R] = [rowsOf.length, offsets.at(-1)!];
  return {
    name,
    kernel: fp8GroupedGradWeightKernel,
    operands: {
      dy: codes([R, N], 96),
      dyScales: groupScales(offsets, N, 97),
      x: codes([R, K], 98),
      xScales: groupScales(offsets, K, 99),
      offsets: { shape: [E + 1], dtype: "i32", values: offsets },
      dw: { shape: [E, N, K], dtype: "f32", values: normals(E * N * K, 90) },
    },
    params: { R, N, K, E, promotion, accumulatorBits },
    tolerance: toleranceOf({ ...plain, accumulatorBits }),
  };
}

const emulated = { accumulatorBits: 14 } as const;

export const fp8ProductCases: readonly OpCase[] = [
  matmulCase("one row", 1, 64, 96),
  matmulCase("one of everything", 1, 1, 1),
  matmulCase("odd everything", 13, 37, 51, { y: "bf16" }),
  matmulCase("576 outputs, 192 inputs", 40, 576, 192),
  matmulCase("the input gradient of 576 outputs", 40, 192, 576, { transposed: 1 }),
  matmulCase("several blocks of k in AMX registers", 70, 530, 1101, { y: "bf16" }),
  matmulCase("promoted every 64", 33, 140, 300, { promotion: 64 }),
  matmulCase("promoted every 32", 33, 140, 300, { promotion: 32 }),
  matmulCase("promoted every 16", 33, 140, 300, { promotion: 16 }),
  matmulCase("with an addend", 40, 192, 576, { addend: true, transposed: 1 }),
  matmulCase("with an addend in bf16, several blocks of k", 70, 530, 1101, { y: "bf16", addend: true }),
  matmulCase("14 bits, with an addend", 9, 140, 300, { ...emulated, addend: true }),
  matmulCase("14 bits", 9, 140, 300, emulated),
  matmulCase("14 bits, promoted every 16", 9, 40, 300, { ...emulated, promotion: 16, y: "bf16" }),
  matmulCase("14 bits, never promoted", 9, 140, 1000, { ...emulated, promotion: 0, transposed: 1 }),
  groupedCase("ragged experts, two empty, gathered", [3, 0, 7, 1, 0, 5], [9, 140, 130], { gather: true }),
  groupedCase("rows in order, back through the weight", [2, 13, 4], [19, 130, 140], {
    gather: false,
    transposed: 1,
    y: "bf16",
  }),
  groupedCase("many rows of one expert", [0, 97, 30], [64, 96, 64], { gather: true, promotion: 32 }),
  groupedCase("14 bits", [5, 0, 2], [6, 40, 150], { gather: true, ...emulated }),
  groupedCase("no row at all", [0, 0], [4, 8, 8], { gather: false }),
  gradCase("one token", 1, 5, 7),
  gradCase("one tile and a short one", 192, 33, 37),
  gradCase("576 tokens", 576, 40, 70, { promotion: 32 }),
  gradCase("several blocks of tokens", 1100, 100, 150),
  gradCase("promoted every 16", 200, 20, 40, { promotion: 16 }),
  gradCase("14 bits", 200, 20, 40, emulated),
  gradCase("14 bits, never promoted", 200, 20, 40, { ...emulated, promotion: 0 }),
  groupedGradCase("ragged experts, two empty", [130, 0, 7, 300, 0, 128], [33, 40]),
  groupedGradCase("experts of one token", [1, 1, 1], [5, 70], { promotion: 64 }),
  groupedGradCase("14 bits", [150, 0, 3], [12, 40], emulated),
  groupedGradCase("no row at all", [0, 0], [4, 8]),
];
