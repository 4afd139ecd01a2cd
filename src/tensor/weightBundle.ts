import type { QueueDevice } from "./device.ts";
import type { Tensor } from "./tensor.ts";

/** Weight gradients that wait for their turn (DualPipe's W): run it once, or dispose it. */
export class WeightBundle {
  readonly #device: QueueDevice;
  readonly #tasks: { readonly held: readonly Tensor[]; readonly run: () => void }[] = [];

  constructor(device: QueueDevice) {
    this.#device = device;
  }

  get length(): number {
    return this.#tasks.length;
  }

  push(held: readonly (Tensor | null)[], run: () => void): void {
    const kept = held.filter((tensor) => tensor !== null);
    for (const tensor of kept) tensor.storage.retain();
    this.#tasks.push({ held: kept, run });
  }

  run(): void {
    for (let task = this.#tasks.shift(); task !== undefined; task = this.#tasks.shift()) {
      using _scope = this.#device.scope();
      try {
        task.run();
      } finally {
        release(task.held);
      }
    }
  }

  [Symbol.dispose](): void {
    for (const { held } of this.#tasks.splice(0)) release(held);
  }
}

function release(tensors: readonly Tensor[]): void {
  for (const { storage } of tensors) storage.release();
}
