/**
 * A tensor: shape, dtype and a place in a backend's memory. No numbers live in JavaScript.
 *
 * Memory is counted, not collected: a storage is given back when nobody holds it any more. Holders
 * are scopes, the tape, pending reads and owners of parameters. Building ops is synchronous; only
 * `read` is async. Device is declared here and made in ./device.ts, so that no import runs in a circle.
 */
import { invariant, ReleasedTensorError, ShapeError } from "../base/index.ts";
import type { Operand } from "./backend/backend.ts";
import { BYTES_PER_ELEMENT, type Dtype } from "./dtype.ts";
import { decodeBytes, encodeBytes } from "./elementBytes.ts";
import type { Param } from "./hostScalar.ts";
import type { Kernel, Values } from "./kernel.ts";
import { type Shape, sizeOf } from "./shape.ts";

/** What ops need of the machine: memory, a queue, and the tape if one is recording. */
export interface Device {
  /** A tensor of garbage, owned by the innermost scope. */
  empty(shape: Shape, dtype: Dtype): Tensor;
  /** A tensor of garbage that no scope owns: `using` it, or dispose it. */
  temporary(shape: Shape, dtype: Dtype): Tensor;
  from(values: ArrayLike<number>, shape: Shape, dtype: Dtype): Tensor;
  /** Enqueues a kernel; operands and params by the names that the kernel declares. */
  run(
    kernel: Kernel,
    operands: Readonly<Record<string, Tensor | null>>,
    params: Readonly<Record<string, Param>>,
    label?: string,
  ): void;
  /** Owns the tensors made until it ends; `using` gives their memory back. */
  scope(): TensorScope;
  /** Ends the innermost ownership of a tensor before its scope does: nothing enqueued later reads it. */
  giveUp(tensor: Tensor): void;
  /** Null while nothing is recorded for a backward pass. */
  readonly tape: Recorder | null;
  readBytes(source: Operand): Promise<Uint8Array>;
  writeBytes(target: Operand, bytes: Uint8Array): void;
}

export interface TensorScope {
  /** Lets a tensor outlive this scope: the scope around it owns it then, or the caller if there is none. */
  keep(tensor: Tensor): Tensor;
  [Symbol.dispose](): void;
}

export interface Recorder {
  record(entry: TapeEntry): void;
  /** Allows a tensor to be given back after its last reader in the forward pass, and to be made again. */
  recompute(tensor: Tensor, when?: "on request" | "always"): void;
  /** The same for what is made of `source`, if that is given back. */
  recomputeWith(tensor: Tensor, source: Tensor): void;
  /** Gives a tensor back after its last reader in the forward pass; later readers get what `from` makes. */
  keepAs(tensor: Tensor, from: Remake): void;
}

/** How one op hands gradients back. Input part and weight part are apart: DualPipe runs them apart. */
export interface TapeEntry {
  readonly op: string;
  readonly inputs: readonly (Tensor | null)[];
  readonly outputs: readonly Tensor[];
  /** All that the gradients read, inputs and outputs included; held until they have run. */
  readonly saved: readonly (Tensor | null)[];
  /** Gradients of `inputs`, in their order, from those of `outputs`; null where none flows. */
  inputGrad(...outputGrads: (Tensor | null)[]): readonly (Tensor | null)[];
  /**
   * The same with `before`, which other readers of the first input have sent, added to that input's gradient as it is
   * made: one rounding, and no pass over memory for the sum. Without it the tape adds.
   */
  inputGradOnto?(before: Tensor, ...outputGrads: (Tensor | null)[]): readonly (Tensor | null)[];
  /** Adds to the gradient buffers of the op's parameters. */
  weightGrad?(...outputGrads: (Tensor | null)[]): void;
  /** How outputs can be made again; those that stand in none are kept. */
  readonly remakes?: readonly Remake[];
}

/** Gives outputs of an op the same bits once more, at new addresses. */
export interface Remake {
  readonly outputs: readonly Tensor[];
  readonly reads: readonly (Tensor | null)[];
  run(): void;
}

export class Storage {
  readonly bytes: number;
  readonly #free: (storage: Storage) => void;
  #base: number;
  #holders = 1;

  constructor(base: number, bytes: number, free: (storage: Storage) => void) {
    this.#base = base;
    this.bytes = bytes;
    this.#free = free;
  }

  /** Address of the first byte. */
  get base(): number {
    return this.#base;
  }

  get isReleased(): boolean {
    return this.#holders === 0;
  }

  retain(): void {
    invariant(this.#holders > 0, "a released storage is retained");
    this.#holders++;
  }

  release(): void {
    invariant(this.#holders > 0, "a storage is released more often than it was held");
    if (--this.#holders === 0) this.#free(this);
  }

  /** Takes memory at another address, for contents that are computed again; the caller is the holder. */
  revive(base: number): void {
    invariant(this.#holders === 0, "a storage in use is given another address");
    this.#base = base;
    this.#holders = 1;
  }
}

export class Tensor {
  readonly device: Device;
  readonly shape: Shape;
  readonly dtype: Dtype;
  readonly storage: Storage;
  /** Elements from the storage's start. */
  readonly offset: number;

  constructor(device: Device, shape: Shape, dtype: Dtype, storage: Storage, offset: number = 0) {
    this.device = device;
    this.shape = shape;
    this.dtype = dtype;
    this.storage = storage;
    this.offset = offset;
  }

  get size(): number {
    return sizeOf(this.shape);
  }

  /** The dimension at `index`; -1 is the last. */
  dim(index: number): number {
    const value = this.shape.at(index);
    invariant(value !== undefined, `a tensor of ${this.shape.length} dimensions has no dimension ${index}`);
    return value;
  }

  /** The same numbers under another shape; one dimension may be -1. Shares memory. */
  reshape(...shape: number[]): Tensor {
    const known = sizeOf(shape.filter((dim) => dim >= 0));
    const full = shape.map((dim) => (dim >= 0 ? dim : this.size / known));
    if (sizeOf(full) !== this.size || !full.every(Number.isInteger)) {
      throw new ShapeError(`[${this.shape.join(", ")}] cannot be read as [${shape.join(", ")}]`, {
        why: "both shapes must hold the same number of elements",
        fix: "check the product of the dimensions",
        fields: { from: this.shape, to: shape },
      });
    }
    return new Tensor(this.device, full, this.dtype, this.storage, this.offset);
  }

  /** Rows `from` to `to` (exclusive) of the first dimension. Shares memory; gradients do not flow through it. */
  rows(from: number, to: number): Tensor {
    const width = this.size / this.dim(0);
    if (from < 0 || to < from || to > this.dim(0)) {
      throw new ShapeError(`rows ${from} to ${to} do not lie inside [${this.shape.join(", ")}]`, {
        why: "a view cannot reach beyond its tensor",
        fix: `take rows between 0 and ${this.dim(0)}`,
        fields: { from, to, shape: this.shape },
      });
    }
    const shape = [to - from, ...this.shape.slice(1)];
    return new Tensor(this.device, shape, this.dtype, this.storage, this.offset + from * width);
  }

  operand(): Operand {
    if (this.storage.isReleased) {
      throw new ReleasedTensorError(
        `a tensor [${this.shape.join(", ")}] ${this.dtype} is used after its release`,
        {
          why: "its scope has ended and its memory may hold something else",
          fix: "return it through scope.keep(tensor)",
          fields: { shape: this.shape },
        },
      );
    }
    const width = BYTES_PER_ELEMENT[this.dtype];
    return { base: this.storage.base, offset: this.offset * width, dtype: this.dtype, length: this.size };
  }

  /** The numbers, once the queue has reached this point; bf16 and smaller floats arrive widened to f32. */
  async read(): Promise<Values> {
    this.storage.retain();
    try {
      return decodeBytes(await this.device.readBytes(this.operand()), this.dtype);
    } finally {
      this.storage.release();
    }
  }

  /** The raw bytes, little-endian, in the tensor's own dtype. */
  async readBytes(): Promise<Uint8Array> {
    this.storage.retain();
    try {
      return await this.device.readBytes(this.operand());
    } finally {
      this.storage.release();
    }
  }

  write(values: ArrayLike<number>): void {
    invariant(values.length === this.size, `${values.length} values are written to a tensor of ${this.size}`);
    this.device.writeBytes(this.operand(), encodeBytes(values, this.dtype));
  }

  writeBytes(bytes: Uint8Array): void {
    const wanted = this.size * BYTES_PER_ELEMENT[this.dtype];
    invariant(
      bytes.byteLength === wanted,
      `${bytes.byteLength} bytes are written to a tensor of ${wanted} bytes`,
    );
    this.device.writeBytes(this.operand(), bytes);
  }

  /** Gives up one hold on the memory. For owners outside any scope; scopes do it by themselves. */
  dispose(): void {
    this.storage.release();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
