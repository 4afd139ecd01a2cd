/** Joins a backend, its memory plan, the scopes that own tensors, and the tape that records ops. */
import { invariant, ShapeError } from "../base/index.ts";
import { Arena } from "./arena.ts";
import type { Backend, Operand } from "./backend/backend.ts";
import { BYTES_PER_ELEMENT, type Dtype } from "./dtype.ts";
import type { Param } from "./hostScalar.ts";
import type { Kernel } from "./kernel.ts";
import { type Shape, sizeOf } from "./shape.ts";
import { type Device, type Recorder, Storage, Tensor, type TensorScope } from "./tensor.ts";

/** Owns the tensors made while it is the innermost scope; `using` gives their memory back. */
export class Scope implements TensorScope {
  readonly #device: QueueDevice;
  readonly #owned: Set<Storage> = new Set();

  constructor(device: QueueDevice) {
    this.#device = device;
  }

  own(storage: Storage): void {
    this.#owned.add(storage);
  }

  /** True if the storage was this scope's, which it then is no longer. */
  disown(storage: Storage): boolean {
    return this.#owned.delete(storage);
  }

  keep(tensor: Tensor): Tensor {
    if (this.disown(tensor.storage)) this.#device.outer(this)?.own(tensor.storage);
    return tensor;
  }

  [Symbol.dispose](): void {
    this.#device.leave(this);
    for (const storage of this.#owned) storage.release();
    this.#owned.clear();
  }
}

export class QueueDevice implements Device {
  readonly backend: Backend;
  readonly arena: Arena;
  readonly #scopes: Scope[] = [];
  #tape: Recorder | null = null;
  #isRecording = false;

  /** @param limitBytes  memory that tensors may take at once */
  constructor(backend: Backend, limitBytes: number) {
    this.backend = backend;
    this.arena = new Arena(limitBytes);
  }

  get tape(): Recorder | null {
    return this.#tape;
  }

  /** Runs `build` while ops are recorded on `tape` (null: not recorded). Building never awaits, so this cannot leak. */
  withTape<T>(tape: Recorder | null, build: () => T): T {
    const before = this.#tape;
    this.#tape = tape;
    try {
      return build();
    } finally {
      this.#tape = before;
    }
  }

  scope(): Scope {
    const scope = new Scope(this);
    this.#scopes.push(scope);
    return scope;
  }

  leave(scope: Scope): void {
    invariant(this.#scopes.at(-1) === scope, "scopes end in the reverse order of their beginning");
    this.#scopes.pop();
  }

  outer(scope: Scope): Scope | undefined {
    return this.#scopes[this.#scopes.indexOf(scope) - 1];
  }

  giveUp({ storage }: Tensor): void {
    if (this.#scopes.some((scope) => scope.disown(storage))) storage.release();
  }

  empty(shape: Shape, dtype: Dtype): Tensor {
    const tensor = this.temporary(shape, dtype);
    this.#scopes.at(-1)?.own(tensor.storage);
    return tensor;
  }

  temporary(shape: Shape, dtype: Dtype): Tensor {
    if (!shape.every((dim) => Number.isSafeInteger(dim) && dim >= 0)) {
      throw new ShapeError(`[${shape.join(", ")}] is no shape`, {
        why: "dimensions are whole numbers, zero or more",
        fix: "check the configuration from which this shape comes",
        fields: { shape },
      });
    }
    const bytes = sizeOf(shape) * BYTES_PER_ELEMENT[dtype];
    if (!Number.isInteger(bytes)) {
      throw new ShapeError(`[${shape.join(", ")}] ${dtype} would end inside a byte`, {
        why: `${dtype} packs two numbers in three bytes`,
        fix: "give its rows an even width",
        fields: { shape, dtype },
      });
    }
    const storage = new Storage(this.#allocate(bytes), bytes, (released) => {
      this.arena.release(released.base);
      this.backend.release(released.base);
    });
    return new Tensor(this, shape, dtype, storage);
  }

  /** Memory for a storage that was given back and is computed again. */
  revive(storage: Storage): void {
    storage.revive(this.#allocate(storage.bytes));
  }

  #allocate(bytes: number): number {
    const base = this.arena.allocate(bytes);
    this.backend.allocate(base, bytes);
    return base;
  }

  from(values: ArrayLike<number>, shape: Shape, dtype: Dtype): Tensor {
    const tensor = this.empty(shape, dtype);
    tensor.write(values);
    return tensor;
  }

  run(
    kernel: Kernel,
    operands: Readonly<Record<string, Tensor | null>>,
    params: Readonly<Record<string, Param>>,
    label: string = "",
  ): void {
    const located = kernel.operands.map((spec) => {
      const tensor = operands[spec.name];
      invariant(tensor !== undefined, `${kernel.name} is called without its operand ${spec.name}`);
      invariant(tensor !== null || spec.isOptional, `${kernel.name} needs its operand ${spec.name}`);
      return tensor === null ? null : tensor.operand();
    });
    const ordered = kernel.params.map((name) => {
      const value = params[name];
      invariant(value !== undefined, `${kernel.name} is called without its param ${name}`);
      return value;
    });
    this.backend.enqueue(kernel, located, ordered, label);
  }

  /** True while a recording is built: what is enqueued will be enqueued again. */
  get isRecording(): boolean {
    return this.#isRecording;
  }

  /** Calls `build`, which only enqueues ops, and returns what enqueues them again; null if the backend cannot. */
  record(build: () => void): (() => void) | null {
    invariant(!this.#isRecording, "a recording does not begin inside another");
    this.#isRecording = true;
    try {
      return this.backend.record(build);
    } finally {
      this.#isRecording = false;
    }
  }

  readBytes(source: Operand): Promise<Uint8Array> {
    invariant(!this.#isRecording, "a replay could not read: reading follows a recording");
    return this.backend.read(source);
  }

  writeBytes(target: Operand, bytes: Uint8Array): void {
    invariant(!this.#isRecording, "a replay would write the same bytes again: writing precedes a recording");
    this.backend.write(target, bytes);
  }

  drain(): Promise<void> {
    return this.backend.drain();
  }

  async dispose(): Promise<void> {
    await this.backend.dispose();
  }
}
