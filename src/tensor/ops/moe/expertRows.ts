/**
 * Experts at work on rows that somebody else has sorted for them: both products of an expert, where tokens arrive and
 * answers leave by messages.
 *
 * The same products as in ./groupedLinear.ts and ./mixture.ts, with two differences. There is room for more rows than
 * there are: how many, the queue knows. And gradients are handed on as they are made, one for each row: a token's rows
 * are summed by who sent it, in the order in which one process would.
 *
 * T tokens and R rows that there is room for.
 */
import { ShapeError } from "../../../base/index.ts";
import type { Dtype } from "../../dtype.ts";
import type { Parameter } from "../../parameter.ts";
import { requireShape } from "../../shape.ts";
import type { Tensor } from "../../tensor.ts";
import { Tiles } from "../fp8/tiles.ts";
import { type Activation, type RowGroups, sourceOf, tensorsOf } from "../projection/projection.ts";
import { projectionOf } from "../projection/projectionOf.ts";
import { mixtureBackwardKernel, weighRowsKernel } from "./mixture.ts";

/** Rows by expert, then by token. */
export interface ExpertRows {
  /** [E + 1] i32: expert e owns rows offsets[e] to offsets[e + 1]; behind the last there is room */
  readonly offsets: Tensor;
  /** [R] i32: the token of each row, among those that arrived */
  readonly tokens: Tensor;
  /** [1] i32: how many rows there are */
  readonly count: Tensor;
}

function tensorsOfRows({ offsets, tokens, count }: ExpertRows): readonly Tensor[] {
  return [offsets, tokens, count];
}

/**
 * y[r] = x[token of r] @ w[expert of r]^T.
 *
 * @param x      [T, K]; its gradient has a row for each r, not for each token
 * @param w      [E, N, K]
 * @param dtype  of the result and of that gradient
 * @returns      [R, N]
 */
export function expertLinear(x: Activation, w: Parameter, rows: ExpertRows, dtype: Dtype): Tensor {
  const [N, K] = [w.shape[1]!, w.shape[2]!];
  const source = sourceOf(x);
  const { device } = source;
  const R = rows.tokens.size;
  requireRows(w, rows);
  requireShape(source, [source.dim(0), K], `${w.path}: x`);
  const projection = projectionOf(w);
  const groups: RowGroups = {
    offsets: rows.offsets,
    count: R,
    filled: rows.count,
    xRows: rows.tokens,
    dyRows: null,
  };
  const input = projection.input(x);
  const y = device.empty([R, N], dtype);
  const reads = [...tensorsOf(input), ...tensorsOfRows(rows)];
  const make = (): void => projection.forward(input, groups, y);
  make();
  device.tape?.record({
    op: "expertLinear",
    inputs: [source],
    outputs: [y],
    saved: reads,
    remakes: [{ outputs: [y], reads, run: make }],
    inputGrad(dy) {
      if (dy === null || w.panelsT === null) return [null];
      const dRows = device.empty([R, K], dtype);
      projection.backInput(dy, groups, dRows);
      return [dRows];
    },
    weightGrad(dy) {
      if (dy !== null && w.grad !== null) projection.backWeight(dy, input, groups);
    },
  });
  return y;
}

export interface ExpertAnswers {
  /** [R, D], unweighted; its gradient is [T, D], that of the tokens: in FP8 the codes of its tiles */
  readonly answers: Tensor;
  /** [0]: nothing itself, but its gradient is the scales of those tiles */
  readonly scales: Tensor;
}

/**
 * answers[r] = hidden[r] @ w[expert of r]^T, not yet weighed: who asked does that, and sends y's gradient back.
 *
 * @param hidden  [R, F]
 * @param w       [E, D, F]
 * @param gates   [R] f32: how much each answer counts
 * @param dtype   of the answers
 */
export function expertAnswers(
  hidden: Tensor,
  w: Parameter,
  rows: ExpertRows,
  gates: Tensor,
  dtype: Dtype,
): ExpertAnswers {
  const { device } = hidden;
  const [D, F] = [w.shape[1]!, w.shape[2]!];
  const R = rows.tokens.size;
  requireRows(w, rows);
  requireShape(hidden, [R, F], `${w.path}: hidden`);
  requireShape(gates, [R], `${w.path}: gates`);
  const projection = projectionOf(w);
  const groups: RowGroups = {
    offsets: rows.offsets,
    count: R,
    filled: rows.count,
    xRows: null,
    dyRows: rows.tokens,
  };
  const answers = device.empty([R, D], dtype);
  const scales = device.empty([0], "f32");
  projection.forward(hidden, groups, answers);
  const sizes = { T: R, K: 1, F };
  const common = { slotRow: null, weights: gates, count: rows.count };
  const gradientOf = (codes: Tensor, of: Tensor | null): Activation =>
    of === null ? codes : new Tiles(codes, codes, of, null);
  device.tape?.record({
    op: "expertAnswers",
    inputs: [hidden, gates],
    outputs: [answers, scales],
    saved: [hidden, gates, ...tensorsOfRows(rows)],
    inputGrad(dy, dyScales) {
      if (dy === null || w.panelsT === null) return [null, null];
      const dHidden = device.empty(hidden.shape, hidden.dtype);
      const dGates = device.empty(gates.shape, gates.dtype);
      projection.backInput(gradientOf(dy, dyScales), groups, dHidden);
      device.run(mixtureBackwardKernel, { ...common, dHidden, hidden, dWeights: dGates }, sizes);
      return [dHidden, dGates];
    },
    weightGrad(dy, dyScales) {
      if (dy === null || w.grad === null) return;
      const weighed = device.empty(hidden.shape, hidden.dtype);
      device.run(weighRowsKernel, { ...common, x: hidden, y: weighed }, sizes);
      projection.backWeight(gradientOf(dy, dyScales), weighed, groups);
    },
  });
  return { answers, scales };
}

function requireRows(w: Parameter, { offsets, count }: ExpertRows): void {
  const experts = offsets.size - 1;
  requireShape(count, [1], `${w.path}: count of rows`);
  if (experts === w.shape[0]) return;
  throw new ShapeError(`${w.path}: rows of ${experts} experts, the weight has ${w.shape[0]}`, {
    why: "rows are sorted by the experts that this weight holds",
    fix: "plan copies for as many units as there are shares of the experts",
    fields: { path: w.path, experts, w: w.shape },
  });
}
