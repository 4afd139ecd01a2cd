/**
 * A list of ops that is built once and replayed afterwards, in one native call instead of one for each op.
 *
 * Addresses come from an arena that gives the same ones again when it is laid out as it was, so the noted commands
 * are those that building anew would enqueue; when it is laid out otherwise, they are built and noted again. What
 * changes from run to run lies outside: input in tensors written before, numbers in `HostScalar`s. A backend
 * that keeps no notes builds every time, which is the plain twin of a replay.
 */
import { invariant } from "../base/index.ts";
import type { QueueDevice } from "./device.ts";

export class Recording {
  readonly #device: QueueDevice;
  readonly #build: () => void;
  #replay: (() => void) | null = null;
  #layout: readonly number[] = [];

  /**
   * @param build  enqueues the same ops on the same tensors whenever it is called, reads and writes nothing else,
   *   and keeps none of the memory that it allocates
   */
  constructor(device: QueueDevice, build: () => void) {
    this.#device = device;
    this.#build = build;
  }

  /** Enqueues the ops: from the notes if they still hold. */
  run(): void {
    const { arena } = this.#device;
    if (this.#replay !== null && arena.hasLayout(this.#layout)) {
      this.#replay();
      return;
    }
    this.#replay = null;
    this.#layout = arena.layout;
    const replay = this.#device.record(() => {
      using _scope = this.#device.scope();
      this.#build();
    });
    invariant(arena.hasLayout(this.#layout), "what a recording allocates is released when it ends");
    this.#replay = replay;
  }
}
