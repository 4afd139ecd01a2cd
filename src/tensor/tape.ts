/**
 * Reverse-mode differentiation: a list of what was done, walked backwards.
 *
 * The gradient of a storage is kept until the op that made the storage has consumed it. Where a
 * tensor feeds several ops, their gradients are added in the reverse order of the ops, always; by the later op itself if
 * it can (`inputGradOnto`).
 *
 * The tape holds what gradients read, and nothing else. With `recomputes` it does not even hold the tensors that
 * `recomputed` names: on the way back the first op that needs one has it made again, by the same kernels from
 * the same numbers, and it stays until the last that reads it has had its turn. What `keptAs` names is held in fewer
 * bits and comes back by the same way, rounded.
 */
import { invariant } from "../base/index.ts";
import type { QueueDevice } from "./device.ts";
import { add } from "./ops/elementwise.ts";
import { sameShape } from "./shape.ts";
import type { Recorder, Remake, Storage, TapeEntry, Tensor } from "./tensor.ts";
import { WeightBundle } from "./weightBundle.ts";

/** An entry, and what it or its remakes read. */
interface HeldEntry {
  readonly entry: TapeEntry;
  readonly reads: Tensor[];
}

export interface TapeOptions {
  /** Gives up the tensors that `recomputed` names, and computes them again on the way back. */
  readonly recomputes?: boolean;
}

export class Tape implements Recorder {
  readonly #device: QueueDevice;
  readonly #recomputes: boolean;
  readonly #entries: HeldEntry[] = [];
  /** For each storage that is not held: what writes it, in order. */
  readonly #makers: Map<Storage, readonly Remake[]> = new Map();
  /** How many reads of it are still to come, for each of those. */
  readonly #readers: Map<Storage, number> = new Map();
  /** Those that have been made again: the tape holds them until their last reader. */
  readonly #remade: Set<Storage> = new Set();
  readonly #grads: Map<Storage, Tensor> = new Map();
  /** Tensors whose gradients are asked for at the end (gradient checks), beyond what the ops consume. */
  readonly #watched: Set<Storage> = new Set();

  constructor(device: QueueDevice, { recomputes = false }: TapeOptions = {}) {
    this.#device = device;
    this.#recomputes = recomputes;
  }

  record(entry: TapeEntry): void {
    const reads = [...present(entry.saved)];
    for (const { storage } of reads) this.#hold(storage);
    this.#entries.push({ entry, reads });
  }

  recompute(tensor: Tensor, when: "on request" | "always" = "on request"): void {
    if (!this.#recomputes && when === "on request") return;
    // Usually one; two where an op in place came after the one that made the tensor.
    const writers = this.#writersOf(tensor);
    const remakes = writers.map(({ entry }) =>
      entry.remakes?.find(({ outputs }) => shareStorage(outputs, tensor)),
    );
    const makers = remakes.filter((remake) => remake !== undefined);
    if (makers.length === writers.length) this.#giveUp(tensor, writers, makers);
  }

  recomputeWith(tensor: Tensor, source: Tensor): void {
    if (this.#makers.has(source.storage)) this.recompute(tensor);
  }

  keepAs(tensor: Tensor, from: Remake): void {
    // What the last writer left is read: an op in place before it is not done again.
    const writers = this.#writersOf(tensor).slice(0, 1);
    this.#giveUp(
      tensor,
      writers,
      writers.map(() => from),
    );
  }

  #writersOf(tensor: Tensor): readonly HeldEntry[] {
    return this.#entries.filter(({ entry }) => shareStorage(entry.outputs, tensor));
  }

  /** From now on reads of the tensor are counted; its makers' own reads are held as long as its writers. */
  #giveUp({ storage }: Tensor, writers: readonly HeldEntry[], makers: readonly Remake[]): void {
    if (makers.length === 0 || this.#makers.has(storage)) return;
    const readBefore = this.#entries.flatMap(({ reads }) => reads.filter((read) => read.storage === storage));
    this.#makers.set(storage, makers);
    for (const _ of readBefore) {
      this.#hold(storage);
      storage.release();
    }
    for (const [i, { reads }] of writers.entries()) {
      for (const tensor of present(makers[i]!.reads)) {
        reads.push(tensor);
        this.#hold(tensor.storage);
      }
    }
  }

  /** Retains a storage that will be read; of one that can be made again it only counts the reads. */
  #hold(storage: Storage): void {
    if (this.#makers.has(storage)) this.#readers.set(storage, (this.#readers.get(storage) ?? 0) + 1);
    else storage.retain();
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
      bundle.push([...entry.saved, ...grads], () => entry.weightGrad?.(...grads));
    });
    return bundle;
  }

  /** Gives back what is still held: after a step that was given up, or that broke off on its way back. */
  [Symbol.dispose](): void {
    for (const entry of this.#entries.splice(0)) this.#release(entry);
    for (const grad of this.#grads.values()) grad.storage.release();
    this.#grads.clear();
  }

  #walk(weights: (entry: TapeEntry, grads: readonly (Tensor | null)[]) => void): void {
    for (let last = this.#entries.pop(); last !== undefined; last = this.#entries.pop()) {
      const { entry } = last;
      try {
        const grads = entry.outputs.map((output) => this.#grads.get(output.storage) ?? null);
        if (grads.some((grad) => grad !== null)) {
          this.#remake(present(entry.saved));
          this.#step(entry, grads, weights);
        }
      } finally {
        this.#release(last);
      }
    }
  }

  /** Makes those of the tensors again that were given back, after those from which they are made. */
  #remake(tensors: readonly Tensor[]): void {
    for (const { storage } of tensors) {
      if (!storage.isReleased) continue;
      const makers = this.#makers.get(storage) ?? [];
      invariant(makers.length > 0, "a tensor that a gradient reads is saved or can be computed again");
      // An op in place reads what the one before it leaves in the same storage.
      const own = new Set(makers.flatMap(({ outputs }) => outputs.map((output) => output.storage)));
      this.#remake(makers.flatMap(({ reads }) => present(reads).filter((read) => !own.has(read.storage))));
      const missing = [...own].filter((output) => output.isReleased);
      for (const output of missing) {
        this.#device.revive(output);
        this.#remade.add(output);
      }
      for (const maker of makers) maker.run();
      for (const output of missing) this.#giveBackUnread(output);
    }
  }

  /** What makes two tensors makes both again, even if the readers of one have had their turn. */
  #giveBackUnread(storage: Storage): void {
    if ((this.#readers.get(storage) ?? 0) === 0 && this.#remade.delete(storage)) storage.release();
  }

  #release({ reads }: HeldEntry): void {
    for (const { storage } of reads) {
      if (this.#makers.has(storage)) {
        this.#readers.set(storage, this.#readers.get(storage)! - 1);
        this.#giveBackUnread(storage);
      } else storage.release();
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
    try {
      const inputGrads = this.#inputGrads(entry, grads);
      weights(entry, grads);
      invariant(inputGrads.length === entry.inputs.length, `${entry.op} returns one gradient per input`);
      inputGrads.forEach((grad, i) => {
        const input = entry.inputs[i];
        if (grad !== null && input != null) this.#accumulate(input, grad);
      });
    } finally {
      for (const [i, grad] of grads.entries()) {
        const output = entry.outputs[i];
        if (grad !== null && output !== undefined && !this.#watched.has(output.storage))
          grad.storage.release();
      }
    }
  }

  #inputGrads(entry: TapeEntry, grads: readonly (Tensor | null)[]): readonly (Tensor | null)[] {
    const [first] = entry.inputs;
    const before = first == null ? undefined : this.#grads.get(first.storage);
    // A gradient of another shape or dtype (a part of the storage, a wider sum) is the tape's business.
    const fits =
      before !== undefined && sameShape(before.shape, first!.shape) && before.dtype === first!.dtype;
    const onto = fits ? entry.inputGradOnto?.(before, ...grads) : undefined;
    if (onto === undefined) return entry.inputGrad(...grads);
    if (onto[0] !== null) {
      // It is part of the new one, whose op is in line before any that writes there.
      this.#grads.delete(first!.storage);
      before!.storage.release();
    }
    return onto;
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

function shareStorage(tensors: readonly Tensor[], { storage }: Tensor): boolean {
  return tensors.some((tensor) => tensor.storage === storage);
}

function present(tensors: readonly (Tensor | null)[]): readonly Tensor[] {
  return tensors.filter((tensor) => tensor !== null);
}
