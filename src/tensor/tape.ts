/**
 * Reverse-mode differentiation: a list of what was done, walked backwards.
 *
 * The gradient of a storage is kept until the op that made the storage has consumed it. Where a
 * tensor feeds several ops, their gradients are added in the reverse order of the ops, always.
 */
import { invariant } from "../base/index.ts";
import type { QueueDevice } from "./device.ts";
import { add } from "./ops/elementwise.ts";
import type { Recorder, Storage, TapeEntry, Tensor } from "./tensor.ts";

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
      task.run();
      for (const tensor of task.held) tensor.storage.release();
    }
  }

  [Symbol.dispose](): void {
    for (const { held } of this.#tasks.splice(0)) for (const tensor of held) tensor.storage.release();
  }
}

export class Tape implements Recorder {
  readonly #device: QueueDevice;
  readonly #entries: TapeEntry[] = [];
  readonly #grads: Map<Storage, Tensor> = new Map();
  /** Tensors whose gradients are asked for at the end (gradient checks), beyond what the ops consume. */
  readonly #watched: Set<Storage> = new Set();

  constructor(device: QueueDevice) {
    this.#device = device;
  }

  record(entry: TapeEntry): void {
    for (const tensor of held(entry)) tensor.storage.retain();
    this.#entries.push(entry);
  }

  /** Keeps the gradient of `tensor` after the backward pass, for `gradOf`. */
  watch(tensor: Tensor): void {
    this.#watched.add(tensor.storage);
  }

  gradOf(tensor: Tensor): Tensor | null {
    return this.#grads.get(tensor.storage) ?? null;
  }

  /** Adds `grad` to what flows into `tensor`: where a backward pass starts. */
  seed(tensor: Tensor, grad: Tensor): void {
    this.#accumulate(tensor, grad);
  }

  /** Walks back through everything recorded: input and weight gradients together. */
  backward(): void {
    this.#walk((entry, grads) => entry.weightGrad?.(...grads));
  }

  /** Walks back for input gradients only; the weight gradients wait in the bundle. */
  backwardInput(): WeightBundle {
    const bundle = new WeightBundle(this.#device);
    this.#walk((entry, grads) => {
      const { weightGrad } = entry;
      if (weightGrad === undefined) return;
      bundle.push([...entry.inputs, ...entry.outputs, ...entry.saved, ...grads], () =>
        entry.weightGrad?.(...grads),
      );
    });
    return bundle;
  }

  /** Gives back what is still held: after a step that was given up. */
  [Symbol.dispose](): void {
    for (const entry of this.#entries.splice(0)) for (const tensor of held(entry)) tensor.storage.release();
    for (const grad of this.#grads.values()) grad.storage.release();
    this.#grads.clear();
  }

  #walk(weights: (entry: TapeEntry, grads: readonly (Tensor | null)[]) => void): void {
    for (let entry = this.#entries.pop(); entry !== undefined; entry = this.#entries.pop()) {
      const grads = entry.outputs.map((output) => this.#grads.get(output.storage) ?? null);
      if (grads.some((grad) => grad !== null)) this.#step(entry, grads, weights);
      for (const tensor of held(entry)) tensor.storage.release();
    }
  }

  #step(
    entry: TapeEntry,
    grads: readonly (Tensor | null)[],
    weights: (entry: TapeEntry, grads: readonly (Tensor | null)[]) => void,
  ): void {
    using _scope = this.#device.scope();
    // Taken out before the inputs' gradients go in: an op in place has one storage on both sides.
    for (const output of new Set(entry.outputs.map((tensor) => tensor.storage))) {
      if (!this.#watched.has(output)) this.#grads.delete(output);
    }
    const inputGrads = entry.inputGrad(...grads);
    weights(entry, grads);
    invariant(inputGrads.length === entry.inputs.length, `${entry.op} returns one gradient per input`);
    inputGrads.forEach((grad, i) => {
      const input = entry.inputs[i];
      if (grad !== null && input != null) this.#accumulate(input, grad);
    });
    for (const [i, grad] of grads.entries()) {
      const output = entry.outputs[i];
      if (grad !== null && output !== undefined && !this.#watched.has(output.storage)) grad.storage.release();
    }
  }

  #accumulate(tensor: Tensor, grad: Tensor): void {
    const before = this.#grads.get(tensor.storage);
    if (before === undefined) {
      grad.storage.retain();
      this.#grads.set(tensor.storage, grad);
      return;
    }
    // Never in place: a residual stream hands one gradient tensor to both of its branches.
    const sum = add(before, grad);
    sum.storage.retain();
    before.storage.release();
    this.#grads.set(tensor.storage, sum);
  }
}

function held(entry: TapeEntry): readonly Tensor[] {
  return [...entry.inputs, ...entry.outputs, ...entry.saved].filter((tensor) => tensor !== null);
}
