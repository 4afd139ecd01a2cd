/**
 * From packed rows to the tensors of a pass: inputs, targets, and what the MTP modules see and predict.
 *
 * A row t_1 .. t_{T+1} has T inputs and one label more. At position i the main model predicts t_{i+1}; module k
 * reads t_{i+k} and predicts t_{i+k+1}. Where that lies beyond the row, beyond the document (if documents are
 * masked), or in padding, the target is -1 and counts nowhere.
 *
 * Source: DeepSeek-V3 report, section 2.2, eq. (24); the windows are masked at the end, not extended.
 */
import type { Device, Tensor } from "../tensor/index.ts";

/** Packed token rows of length T + 1; -1 pads. */
export interface Rows {
  readonly tokens: Int32Array;
  readonly count: number;
  /** T: inputs per row. */
  readonly rowLength: number;
}

export interface BatchPlan {
  /** [T_total] each */
  readonly ids: Int32Array;
  readonly positions: Int32Array;
  readonly targets: Int32Array;
  /** Per MTP module: what it reads and what it predicts. */
  readonly mtp: readonly { readonly ids: Int32Array; readonly targets: Int32Array; readonly valid: number }[];
  /** [S + 1] */
  readonly seqOffsets: Int32Array;
  /** Those of the S that are not empty: the mean balance loss divides by them. */
  readonly sequences: number;
  /** Positions with a target: the mean loss divides by them. */
  readonly valid: number;
}

export interface BatchOptions {
  readonly mtpDepth: number;
  /** Stands in for padding where an input is needed; its position has no target. */
  readonly padId: number;
  /** Ends a document; null: attention and MTP cross document boundaries, as in the report. */
  readonly documentEnd: number | null;
}

export function planBatch({ tokens, count, rowLength: T }: Rows, options: BatchOptions): BatchPlan {
  const ids = new Int32Array(count * T);
  const positions = new Int32Array(count * T);
  const targets = new Int32Array(count * T);
  const shifted = Array.from({ length: options.mtpDepth }, () => ({
    ids: new Int32Array(count * T),
    targets: new Int32Array(count * T),
  }));
  for (let r = 0; r < count; r++) {
    const row = tokens.subarray(r * (T + 1), (r + 1) * (T + 1));
    const ends = documentEnds(row, options.documentEnd);
    for (let i = 0; i < T; i++) {
      const at = r * T + i;
      ids[at] = inputOf(row[i], options.padId);
      positions[at] = i - (options.documentEnd === null ? 0 : ends.starts[i]!);
      targets[at] = row[i]! < 0 ? -1 : targetOf(row, i, i + 1, ends.of);
    }
    // A loop of its own: entries of each token were two thirds of a step's garbage.
    for (const [k, module] of shifted.entries()) {
      for (let i = 0; i < T; i++) {
        module.ids[r * T + i] = inputOf(row[i + k + 1], options.padId);
        module.targets[r * T + i] = row[i]! < 0 ? -1 : targetOf(row, i, i + k + 2, ends.of);
      }
    }
  }
  const mtp = shifted.map((module) => ({ ...module, valid: countValid(module.targets) }));
  const seqOffsets = offsetsOf(positions, count, T, options.documentEnd !== null);
  const sequences = positions.reduce((starts, position) => starts + (position === 0 ? 1 : 0), 0);
  return { ids, positions, targets, mtp, seqOffsets, sequences, valid: countValid(targets) };
}

/** For each position, the index of its document's last token, and where its document starts in the row. */
function documentEnds(row: Int32Array, end: number | null): { of: Int32Array; starts: Int32Array } {
  const of = new Int32Array(row.length).fill(row.length - 1);
  const starts = new Int32Array(row.length);
  if (end === null) return { of, starts };
  let start = 0;
  for (let i = 0; i < row.length; i++) {
    starts[i] = start;
    if (row[i] !== end) continue;
    of.fill(i, start, i + 1);
    start = i + 1;
  }
  return { of, starts };
}

/** The token at `index`, unless it lies beyond the row, in padding, or behind the document that `from` is in. */
function targetOf(row: Int32Array, from: number, index: number, ends: Int32Array): number {
  return index < row.length && index <= ends[from]! ? row[index]! : -1;
}

function inputOf(token: number | undefined, padId: number): number {
  return token === undefined || token < 0 ? padId : token;
}

/**
 * Sequence bounds. Documents make a data-dependent number of sequences, and no op's shape may depend on data:
 * then there is room for one sequence per token, and those not needed are empty.
 */
function offsetsOf(positions: Int32Array, rows: number, T: number, isMasked: boolean): Int32Array {
  const length = offsetsLength(rows, T, isMasked);
  if (!isMasked) return Int32Array.from({ length }, (_, r) => r * T);
  const offsets = new Int32Array(length).fill(rows * T);
  let s = 0;
  for (let i = 0; i < positions.length; i++) if (positions[i] === 0) offsets[s++] = i;
  return offsets;
}

function offsetsLength(rows: number, T: number, isMasked: boolean): number {
  return (isMasked ? rows * T : rows) + 1;
}

function countValid(targets: Int32Array): number {
  let count = 0;
  for (const target of targets) if (target >= 0) count++;
  return count;
}

export interface BatchTensors {
  readonly ids: Tensor;
  readonly positions: Tensor;
  readonly targets: Tensor;
  readonly seqOffsets: Tensor;
  readonly mtp: readonly { readonly ids: Tensor; readonly targets: Tensor }[];
}

export interface BatchSizes {
  readonly rows: number;
  readonly rowLength: number;
  readonly mtpDepth: number;
  readonly masksDocuments: boolean;
}

/** Tensors for batches of one size, outside any scope. */
export function makeBatch(
  device: Device,
  { rows, rowLength, mtpDepth, masksDocuments }: BatchSizes,
): BatchTensors {
  const tokens = rows * rowLength;
  const make = (length: number): Tensor => device.temporary([length], "i32");
  return {
    ids: make(tokens),
    positions: make(tokens),
    targets: make(tokens),
    seqOffsets: make(offsetsLength(rows, rowLength, masksDocuments)),
    mtp: Array.from({ length: mtpDepth }, () => ({ ids: make(tokens), targets: make(tokens) })),
  };
}

export function writeBatch(batch: BatchTensors, plan: BatchPlan): void {
  for (const name of ["ids", "positions", "targets", "seqOffsets"] as const) batch[name].write(plan[name]);
  for (const [k, { ids, targets }] of batch.mtp.entries()) {
    ids.write(plan.mtp[k]!.ids);
    targets.write(plan.mtp[k]!.targets);
  }
}

export function disposeBatch({ ids, positions, targets, seqOffsets, mtp }: BatchTensors): void {
  const tensors = [
    ids,
    positions,
    targets,
    seqOffsets,
    ...mtp.flatMap((module) => [module.ids, module.targets]),
  ];
  for (const tensor of tensors) tensor.dispose();
}
