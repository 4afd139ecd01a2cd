/**
 * The three products of a projection: y = x W^T, dx = dy W, dW += dy^T x.
 *
 * There are two kinds, one for weights in f32 and bf16 (./plain.ts) and one for FP8 (./fp8.ts); the weight's format
 * chooses, in ./projectionOf.ts. The ops ask for the products and know no format.
 */
import type { Tensor } from "../../tensor.ts";
import { Tiles } from "../fp8/tiles.ts";

/** What a projection multiplies: numbers as an op left them, or the tiles that all its projections share. */
export type Activation = Tensor | Tiles;

/** Rows sorted by the matrix of a batch that they meet. */
export interface RowGroups {
  /** [E + 1] i32: matrix e takes rows offsets[e] to offsets[e + 1] */
  readonly offsets: Tensor;
  /** Rows of all matrices together, or room for them. */
  readonly count: number;
  /** [1] i32: how many rows there are, where that is less than the room; null where all are used */
  readonly filled: Tensor | null;
  /** [count] i32: where in x each row is read; null where x has them in this order */
  readonly xRows: Tensor | null;
  /** [count] i32: the same in dy */
  readonly dyRows: Tensor | null;
}

export interface Projection {
  /** x in the form in which this projection reads it, on both ways. */
  input(x: Activation): Activation;
  /** y = x W^T; without groups one matrix takes all rows. */
  forward(x: Activation, groups: RowGroups | null, y: Tensor): void;
  /** dx = dy W, rows of dx in the order of the groups; without groups `before`, [rows, K], is added */
  backInput(dy: Activation, groups: RowGroups | null, dx: Tensor, before?: Tensor | null): void;
  /** dW += dy^T x, into the weight's gradient buffer */
  backWeight(dy: Activation, x: Activation, groups: RowGroups | null): void;
}

/** The tensor whose gradient the projection's input has. */
export function sourceOf(x: Activation): Tensor {
  return x instanceof Tiles ? x.source : x;
}

/** What must be held so that x can be read on the way back. */
export function tensorsOf(x: Activation): readonly Tensor[] {
  return x instanceof Tiles ? x.tensors : [x];
}
