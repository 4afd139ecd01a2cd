/**
 * Which tokens each unit of neighbouring experts is sent: one copy of a token, however many experts it has there.
 *
 * A unit is what lies behind one message: the experts of a rank, of a node, or of one group whose answers are summed
 * before they return. Rows stay in the plan's order, by expert and then by token, so whoever gets a unit's rows holds
 * a plan of its own experts without making one.
 *
 * Nothing here has a shape that depends on data: counts lie in headers and bounds, on the queue.
 */
import { ShapeError } from "../../../base/index.ts";
import { defineKernel, type Kernel } from "../../kernel.ts";
import { requireDtype, requireShape } from "../../shape.ts";
import type { Tensor } from "../../tensor.ts";

export const planCopiesKernel: Kernel = defineKernel({
  name: "planCopies",
  operands: {
    offsets: "in i32",
    rows: "in i32",
    headers: "out i32",
    bounds: "out i32",
    tokens: "out i32",
    rowCopy: "out i32",
    copyRows: "out? i32",
    tokenCopies: "out? i32",
  },
  params: ["T", "K", "E", "U", "R", "C"],
  reference({ offsets, rows, headers, bounds, tokens, rowCopy, copyRows, tokenCopies }, { T, K, E, U }) {
    const perUnit = E / U;
    copyRows?.fill(-1);
    tokenCopies?.fill(-1);
    let copies = 0;
    for (let u = 0; u < U; u++) {
      bounds[u] = copies;
      const [from, to] = [offsets[u * perUnit]!, offsets[(u + 1) * perUnit]!];
      const numbers = new Map<number, number>();
      for (const token of Array.from(rows.subarray(from, to)).sort((a, b) => a - b)) {
        if (numbers.has(token)) continue;
        if (token < 0 || token >= T) throw new RangeError(`${token} is no token of ${T}`);
        numbers.set(token, copies);
        if (tokenCopies !== null) append(tokenCopies, token * K, K, copies);
        tokens[copies++] = token;
      }
      for (let row = from; row < to; row++) {
        const copy = numbers.get(rows[row]!)!;
        rowCopy[row] = copy - bounds[u]!;
        if (copyRows !== null) append(copyRows, copy * K, K, row);
      }
      const header = u * (perUnit + 3);
      for (let e = 0; e <= perUnit; e++) headers[header + e] = offsets[u * perUnit + e]! - from;
      headers[header + perUnit + 1] = 0;
      headers[header + perUnit + 2] = copies - bounds[u]!;
    }
    bounds[U] = copies;
  },
});

/** Puts a value at the first free place of K. */
function append(lists: Int32Array, start: number, K: number, value: number): void {
  const place = lists.subarray(start, start + K).indexOf(-1);
  if (place < 0) throw new RangeError(`a list has more than ${K} members`);
  lists[start + place] = value;
}

export const gatherRowsKernel: Kernel = defineKernel({
  name: "gatherRows",
  operands: { x: "in", rows: "in i32", count: "in? i32", y: "out" },
  params: ["R", "width"],
  reference({ x, rows, count, y }, { R, width }) {
    for (let r = 0; r < (count?.[0] ?? R); r++) {
      for (let i = 0; i < width; i++) y[r * width + i] = rows[r]! < 0 ? 0 : x[rows[r]! * width + i]!;
    }
  },
});

/** Numbers before a unit's token count in its header: E / U + 1 offsets, and a 0. */
const COUNT_FROM = 2;

/** What one unit's rows are, as its owner learns it from one small message. */
export interface UnitHeader {
  /** [E / U + 3] i32 */
  readonly all: Tensor;
  /** [E / U + 1] i32: expert e of the unit owns rows offsets[e] to offsets[e + 1]; its last number is the count of rows */
  readonly offsets: Tensor;
  /** [1] i32: rows of the unit */
  readonly rows: Tensor;
  /** [2] i32: 0 and the number of copies */
  readonly copies: Tensor;
}

/** The parts of a header; `all` may have been filled by a message. */
export function unitHeader(all: Tensor): UnitHeader {
  const experts = all.size - COUNT_FROM - 1;
  return {
    all,
    offsets: all.rows(0, experts + 1),
    rows: all.rows(experts, experts + 1),
    copies: all.rows(experts + 1, experts + 3),
  };
}

/** An empty header for a unit of so many experts. */
export function emptyHeader(like: Tensor, experts: number): UnitHeader {
  return unitHeader(like.device.empty([experts + 1 + COUNT_FROM], "i32"));
}

/** The copies of tokens that the units of a plan are sent. */
export interface CopyPlan {
  /** One for each unit. */
  readonly headers: readonly UnitHeader[];
  /** [U + 1] i32: unit u is sent copies bounds[u] to bounds[u + 1] */
  readonly bounds: Tensor;
  /** [C] i32: the token of each copy */
  readonly tokens: Tensor;
  /** [R] i32: the copy of each row, counted from its unit's first */
  readonly rowCopy: Tensor;
  /** [C, K] i32: the rows of each copy, ascending, all else -1; null where nobody sums copies */
  readonly copyRows: Tensor | null;
  /** [T, K] i32: the copies of each token, ascending, all else -1; null likewise */
  readonly tokenCopies: Tensor | null;
}

export interface CopyOptions {
  /** Number of units U. */
  readonly units: number;
  /** Number of tokens T, or room for them. */
  readonly tokens: number;
  /** Experts per token K. */
  readonly topK: number;
  /** Whether copies will be summed: makes copyRows and tokenCopies. */
  readonly sums?: boolean;
}

/**
 * Numbers the copies that each unit of experts is sent.
 *
 * @param offsets  [E + 1] i32: expert e owns rows offsets[e] to offsets[e + 1]
 * @param rows     [R] i32: the token of each row, ascending within an expert; behind the last offset meaningless
 */
export function planCopies(
  offsets: Tensor,
  rows: Tensor,
  { units: U, tokens: T, topK: K, sums = false }: CopyOptions,
): CopyPlan {
  const { device } = offsets;
  requireDtype(offsets, ["i32"], "planCopies: offsets");
  requireDtype(rows, ["i32"], "planCopies: rows");
  const [E, R] = [offsets.size - 1, rows.size];
  if (U < 1 || !Number.isInteger(E / U)) {
    throw new ShapeError(`planCopies: ${E} experts do not make ${U} equal units`, {
      why: "every rank, node or group holds as many experts",
      fix: `use a divisor of ${E} as units`,
      fields: { experts: E, units: U },
    });
  }
  const C = T * Math.min(K, U);
  const header = E / U + 1 + COUNT_FROM;
  const headers = device.empty([U, header], "i32");
  const bounds = device.empty([U + 1], "i32");
  const tokens = device.empty([C], "i32");
  const rowCopy = device.empty([R], "i32");
  const copyRows = sums ? device.empty([C, K], "i32") : null;
  const tokenCopies = sums ? device.empty([T, K], "i32") : null;
  const operands = { offsets, rows, headers, bounds, tokens, rowCopy, copyRows, tokenCopies };
  device.run(planCopiesKernel, operands, { T, K, E, U, R, C });
  return {
    headers: Array.from({ length: U }, (_, u) => unitHeader(headers.rows(u, u + 1).reshape(-1))),
    bounds,
    tokens,
    rowCopy,
    copyRows,
    tokenCopies,
  };
}

/**
 * y[i] = x[rows[i]], of any dtype that has whole bytes; a row of -1 is zeros. No tape.
 *
 * @param x      [N, ...]
 * @param rows   [R] i32
 * @param count  [1] i32: how many of the R there are; null for all
 */
export function gatherRows(x: Tensor, rows: Tensor, count: Tensor | null = null): Tensor {
  requireDtype(rows, ["i32"], "gatherRows: rows");
  if (count !== null) requireShape(count, [1], "gatherRows: count");
  const [R, width] = [rows.size, x.shape.slice(1).reduce((product, dim) => product * dim, 1)];
  const y = x.device.empty([R, ...x.shape.slice(1)], x.dtype);
  x.device.run(gatherRowsKernel, { x, rows, count, y }, { R, width });
  return y;
}

export const copyKernels: readonly Kernel[] = [planCopiesKernel, gatherRowsKernel];
