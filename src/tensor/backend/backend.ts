import type { Dtype } from "../dtype.ts";
import type { Param } from "../hostScalar.ts";
import type { Kernel } from "../kernel.ts";

export type BackendName = "reference" | "native" | "plan";

/** A range of a tensor's storage, as a command sees it. */
export interface Operand {
  /** Address of the storage in the arena. */
  readonly base: number;
  /** Bytes from there to the first element. */
  readonly offset: number;
  readonly dtype: Dtype;
  /** Number of elements. */
  readonly length: number;
}

/** One rank's place among those that exchange messages; made by a hub of the backend's own kind. */
export interface Endpoint {
  readonly rank: number;
  /** Ends what the other ranks wait for, now and later, with an error that names this rank and says why. */
  abort(why: string): void;
}

/**
 * A queue that computes: commands run in the order in which they were enqueued, away from the event loop.
 *
 * `enqueue`, `write`, `allocate` and `release` never block. The first failing command poisons the
 * queue: later ones are skipped, every pending and later `read` or `drain` rejects with that one
 * error, and the queue can only be disposed.
 */
export interface Backend {
  readonly name: BackendName;
  /** One line for people: CPU features, threads, why this backend. */
  readonly description: string;
  allocate(base: number, bytes: number): void;
  release(base: number): void;
  /** @param label  the parameter path or the place in the model, for error messages */
  enqueue(
    kernel: Kernel,
    operands: readonly (Operand | null)[],
    params: readonly Param[],
    label: string,
  ): void;
  /**
   * Calls `build` and returns what enqueues its commands again, host scalars at their values of then; null where a
   * backend keeps no notes. Between its commands `build` neither reads nor writes.
   */
  record(build: () => void): (() => void) | null;
  /**
   * Where messages to other ranks go from here on: an endpoint of a hub in this process, or the address of a table as
   * in native/mpi/transport.h. If the queue fails, or is disposed with messages open, the other ranks are told.
   */
  connect(transport: Endpoint | bigint): void;
  /** Copies bytes in, in order; `bytes` may be reused as soon as this returns. */
  write(target: Operand, bytes: Uint8Array): void;
  /** Resolves with a copy of the bytes as they are when the queue gets there. */
  read(source: Operand): Promise<Uint8Array>;
  /** Resolves when everything enqueued so far has run. */
  drain(): Promise<void>;
  dispose(): Promise<void>;
}
