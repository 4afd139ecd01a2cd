/**
 * What ranks do together, composed of exchanges.
 *
 * Each has a form that posts, for those who have something to compute meanwhile, and one that also awaits. All ranks
 * call the same function at the same place. Bytes are copied, never computed with: sums are in ./sums.ts.
 *
 * Dims: R ranks.
 */
import { copyInto, type Tensor } from "../../tensor/index.ts";
import { requireRoot, requireSize } from "./check.ts";
import type { Communicator, Pending } from "./communicator.ts";

/** A result that is there once `wait` has been called. */
export interface Posted extends Pending {
  readonly y: Tensor;
}

/**
 * Begins to give every rank what each has.
 *
 * @param x  any shape, the same on all ranks
 * @returns  [R, ...x.shape], row r from rank r
 */
export function postAllGather(communicator: Communicator, x: Tensor, tag?: number): Posted {
  const y = communicator.device.empty([communicator.size, ...x.shape], x.dtype);
  return { y, wait: postAllGatherInto(communicator, x, y, tag).wait };
}

/** As `postAllGather`, into a tensor that is there. */
export function postAllGatherInto(communicator: Communicator, x: Tensor, y: Tensor, tag?: number): Pending {
  const { rank, size } = communicator;
  requireSize("allGather: rows of y", y.dim(0), size);
  const others = otherRanks(communicator);
  const pending = communicator.exchange(
    others.map((to) => ({ to, x })),
    others.map((from) => ({ from, y: y.rows(from, from + 1) })),
    tag,
  );
  copyInto(x.reshape(1, ...x.shape), y.rows(rank, rank + 1));
  return pending;
}

/** As `postAllGather`, awaited. */
export function allGather(communicator: Communicator, x: Tensor, tag?: number): Tensor {
  return awaited(postAllGather(communicator, x, tag));
}

/**
 * Begins to give each rank its row of what every rank has.
 *
 * @param x  [R, ...]: row r goes to rank r
 * @returns  [R, ...]: row r came from rank r
 */
export function postAllToAll(communicator: Communicator, x: Tensor, tag?: number): Posted {
  const { rank, size, device } = communicator;
  requireSize("allToAll: rows of x", x.dim(0), size);
  const y = device.empty(x.shape, x.dtype);
  const others = otherRanks(communicator);
  const pending = communicator.exchange(
    others.map((to) => ({ to, x: x.rows(to, to + 1) })),
    others.map((from) => ({ from, y: y.rows(from, from + 1) })),
    tag,
  );
  copyInto(x.rows(rank, rank + 1), y.rows(rank, rank + 1));
  return { y, wait: pending.wait };
}

/** As `postAllToAll`, awaited. */
export function allToAll(communicator: Communicator, x: Tensor, tag?: number): Tensor {
  return awaited(postAllToAll(communicator, x, tag));
}

/** Rows of a tensor in R runs, one for each rank, whose ends only the queue knows. */
export interface RaggedRows {
  /** [n, ...]; rows from offsets[R] on mean nothing */
  readonly x: Tensor;
  /** [R + 1] i32: rank r has rows offsets[r] to offsets[r + 1] */
  readonly offsets: Tensor;
}

/**
 * Begins to move runs of rows: what stands in `from` for rank r goes to r, what comes from it stands in `to`.
 *
 * Both sides' offsets must agree before: a rank's run for another is as long as what that one expects.
 */
export function postAllToAllRows(
  communicator: Communicator,
  from: RaggedRows,
  to: RaggedRows,
  tag?: number,
): Pending {
  const { size } = communicator;
  requireSize("allToAllRows: offsets sent", from.offsets.size, size + 1);
  requireSize("allToAllRows: offsets received", to.offsets.size, size + 1);
  const ranks = Array.from({ length: size }, (_, rank) => rank);
  return communicator.exchange(
    // The run for oneself is a message too: where it lies is known to the queue alone.
    ranks.map((r) => ({ to: r, x: from.x, range: { offsets: from.offsets, begin: r, end: r + 1 } })),
    ranks.map((r) => ({ from: r, y: to.x, range: { offsets: to.offsets, begin: r, end: r + 1 } })),
    tag,
  );
}

/** As `postAllToAllRows`, awaited. */
export function allToAllRows(
  communicator: Communicator,
  from: RaggedRows,
  to: RaggedRows,
  tag?: number,
): void {
  postAllToAllRows(communicator, from, to, tag).wait();
}

/**
 * Gives all ranks what the root has, by doubling: after k rounds 2^k ranks have it.
 *
 * @param x  any shape; on the root what is sent, elsewhere overwritten
 */
export function broadcast(communicator: Communicator, x: Tensor, root: number, tag?: number): void {
  const { rank, size } = communicator;
  requireRoot("broadcast", root, size);
  const place = (rank - root + size) % size;
  const rankAt = (other: number): number => (other + root) % size;
  for (let reach = 1; reach < size; reach *= 2) {
    if (place < reach && place + reach < size) {
      communicator.exchange([{ to: rankAt(place + reach), x }], [], tag).wait();
    } else if (place >= reach && place < 2 * reach) {
      communicator.exchange([], [{ from: rankAt(place - reach), y: x }], tag).wait();
    }
  }
}

/** Resolves when every rank's queue has come to this point. */
export async function barrier(communicator: Communicator, tag?: number): Promise<void> {
  const { device } = communicator;
  using nothing = device.temporary([0], "i32");
  const others = otherRanks(communicator);
  const sends = others.map((to) => ({ to, x: nothing }));
  communicator
    .exchange(
      sends,
      others.map((from) => ({ from, y: nothing })),
      tag,
    )
    .wait();
  await device.drain();
}

function awaited(posted: Posted): Tensor {
  posted.wait();
  return posted.y;
}

/** From the next rank on, so that not all send to rank 0 first. */
function otherRanks({ rank, size }: Communicator): readonly number[] {
  return Array.from({ length: size - 1 }, (_, i) => (rank + 1 + i) % size);
}
