/**
 * What a rank needs of the others: messages on its queue, in the order in which all ranks build their steps.
 *
 * All ranks of a communicator make the same calls in the same order; each says what it alone knows. Whatever lies
 * below, an in-process hub or MPI, carries point-to-point messages only: the collectives beside this file are
 * composed of `exchange`, and sums are our own kernels', in a fixed order, so that they have the same bits everywhere.
 */
import type { QueueDevice, RowRange, Tensor } from "../../tensor/index.ts";

/** One message to a rank of the communicator. */
export interface Send {
  readonly to: number;
  readonly x: Tensor;
  /** Only these rows of it, as the queue then finds the offsets. */
  readonly range?: RowRange;
}

/** One message from a rank of the communicator; exactly as long as what is sent. */
export interface Receive {
  readonly from: number;
  readonly y: Tensor;
  readonly range?: RowRange;
}

/** Messages under way. Their tensors are held until `wait`, whatever becomes of the scopes that own them. */
export interface Pending {
  /** Enqueues the await. Once, and on every rank that posted; what is enqueued before it computes meanwhile. */
  wait(): void;
}

export interface Communicator {
  /** This rank among those of the communicator, from 0. */
  readonly rank: number;
  readonly size: number;
  /** This rank's queue and memory. */
  readonly device: QueueDevice;
  /**
   * Posts messages; a message to oneself is legal.
   *
   * @param tag  0 to 255: tells apart exchanges between the same ranks whose order differs from rank to rank
   */
  exchange(sends: readonly Send[], receives: readonly Receive[], tag?: number): Pending;
  /**
   * The communicator of some of the ranks, numbered as they stand in `members`. Every rank of this communicator calls
   * it, at the same place, each with the group that it is in itself; no message is needed.
   */
  split(members: readonly number[]): Communicator;
  /** Ends what the other ranks wait for, with an error that names this rank and says why. */
  abort(why: string): void;
}
