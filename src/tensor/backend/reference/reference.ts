/**
 * The reference backend: pure TypeScript, one op per slice of the event loop, correct and slow.
 *
 * It is the definition that native kernels are held to, the oracle in f64, and what runs where no
 * native addon could be built. Every operand is decoded to plain numbers, the kernel's reference
 * runs, and what it wrote is encoded in the storage's dtype.
 */
import { BackendError, type BaseError, invariant } from "../../../base/index.ts";
import { BYTES_PER_ELEMENT, bf16FromNumber, bf16ToNumber, type Dtype } from "../../dtype.ts";
import { e4m3FromNumber, e4m3ToNumber, packE5m6, unpackE5m6 } from "../../fp8.ts";
import { type Param, paramValue } from "../../hostScalar.ts";
import type { Kernel, MessagePart, Values } from "../../kernel.ts";
import type { Backend, Endpoint, Operand } from "../backend.ts";
import { connecting, DISPOSED_WITH_MESSAGES, messageFailure } from "../messageFailure.ts";
import { ReferenceEndpoint } from "./hub.ts";
import { type Located, MessageLine } from "./messageLine.ts";

/** A promise where the queue waits for other ranks; the event loop turns meanwhile. */
type Task = () => void | Promise<void>;

export class ReferenceBackend implements Backend {
  readonly name = "reference";
  readonly canDefer = false;
  readonly description: string = "reference backend: pure TypeScript, one thread";
  readonly #buffers: Map<number, ArrayBuffer> = new Map();
  readonly #tasks: Task[] = [];
  #isRunning = false;
  #failure: BaseError | null = null;
  #line: MessageLine | null = null;

  allocate(base: number, bytes: number): void {
    // Commands capture the buffer itself, so a later tenant of this address cannot disturb them.
    this.#buffers.set(base, new ArrayBuffer(bytes));
  }

  release(base: number): void {
    this.#buffers.delete(base);
  }

  enqueue(
    kernel: Kernel,
    operands: readonly (Operand | null)[],
    params: readonly Param[],
    label: string,
  ): void {
    const located = operands.map((operand) => (operand === null ? null : this.#locate(operand)));
    const named = Object.fromEntries(kernel.params.map((name, i) => [name, paramValue(params[i]!)]));
    if (kernel.special === "pause") {
      this.#push(() => (this.#failure === null ? sleep(named["microseconds"]! / 1000) : undefined));
      return;
    }
    if (kernel.special !== null) {
      this.#enqueueMessage(kernel, kernel.special, located, named, label);
      return;
    }
    this.#push(() => {
      if (this.#failure !== null) return;
      try {
        runReference(kernel, located, named);
      } catch (cause) {
        const why = reasonOf(cause);
        const what = `${kernel.name} failed${label === "" ? "" : ` at ${label}`}`;
        this.#poison(
          new BackendError(what, {
            why,
            fix: "the queue can only be disposed now; run `minke doctor` and report this if it repeats",
            fields: { op: kernel.name, label },
            cause,
          }),
          kernel.name,
          why,
        );
      }
    });
  }

  connect(transport: Endpoint | bigint): void {
    if (!(transport instanceof ReferenceEndpoint)) {
      throw new BackendError("the reference backend cannot be connected to this transport", {
        why: "it speaks with other reference queues of its own process only",
        fix: "connect an endpoint of a ReferenceHub, or use the native backend on every rank",
        fields: { backend: this.name },
      });
    }
    connecting(() => transport.take());
    this.#line = new MessageLine(transport);
  }

  #enqueueMessage(
    kernel: Kernel,
    part: MessagePart,
    located: readonly (Located | null)[],
    params: Readonly<Record<string, number>>,
    label: string,
  ): void {
    const line = this.#line;
    line?.enqueued(part);
    this.#push(async () => {
      if (this.#failure !== null) return;
      try {
        if (line === null) throw new Error("the queue is not connected to other ranks");
        await line.run(part, located, params);
      } catch (cause) {
        const reason = reasonOf(cause);
        this.#poison(messageFailure(kernel.name, label, reason, cause), kernel.name, reason);
      }
    });
  }

  /** The first failure counts; ranks that wait for this one are told. */
  #poison(failure: BaseError, op: string, reason: string): void {
    this.#failure = failure;
    this.#line?.endpoint.abort(`${op}: ${reason}`);
  }

  mark(): void {}

  record(build: () => void): null {
    build();
    return null;
  }

  write(target: Operand, bytes: Uint8Array): void {
    const { bytes: destination } = this.#locate(target);
    const copy = bytes.slice();
    this.#push(() => destination.set(copy));
  }

  read(source: Operand): Promise<Uint8Array> {
    const { bytes } = this.#locate(source);
    return this.#after(() => bytes.slice());
  }

  drain(): Promise<void> {
    return this.#after(() => undefined);
  }

  async dispose(): Promise<void> {
    if (this.#line?.isOpen === true) this.#line.endpoint.abort(DISPOSED_WITH_MESSAGES);
    await this.#after(() => undefined).catch((error: unknown) => {
      // Whoever read or drained before has been told; disposing a poisoned queue is legal.
      invariant(error === this.#failure, "the reference queue rejected with a foreign error");
    });
    this.#buffers.clear();
  }

  #locate(operand: Operand): Located {
    const buffer = this.#buffers.get(operand.base);
    invariant(buffer !== undefined, `no storage lies at address ${operand.base}`);
    const bytes = new Uint8Array(buffer, operand.offset, operand.length * BYTES_PER_ELEMENT[operand.dtype]);
    return { bytes, dtype: operand.dtype, length: operand.length };
  }

  #after<T>(value: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#push(() => (this.#failure === null ? resolve(value()) : reject(this.#failure)));
    });
  }

  #push(task: Task): void {
    this.#tasks.push(task);
    if (this.#isRunning) return;
    this.#isRunning = true;
    setImmediate(() => this.#run());
  }

  #run(): void {
    const sliceEnd = performance.now() + 5;
    do {
      const waiting = this.#tasks.shift()?.();
      if (waiting !== undefined) {
        void waiting.then(() => this.#next());
        return;
      }
    } while (this.#tasks.length > 0 && performance.now() < sliceEnd);
    this.#next();
  }

  #next(): void {
    this.#isRunning = this.#tasks.length > 0;
    if (this.#isRunning) setImmediate(() => this.#run());
  }
}

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, milliseconds);
  });
}

function reasonOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

function runReference(
  kernel: Kernel,
  located: readonly (Located | null)[],
  params: Record<string, number>,
): void {
  const values: Record<string, Values | null> = {};
  const dtypes: Record<string, Dtype | null> = {};
  kernel.operands.forEach((spec, i) => {
    const operand = located[i] ?? null;
    values[spec.name] = operand === null ? null : decode(operand);
    dtypes[spec.name] = operand?.dtype ?? null;
  });
  kernel.reference(values, params, dtypes);
  kernel.operands.forEach((spec, i) => {
    const operand = located[i] ?? null;
    if (operand !== null && spec.access !== "in") encode(values[spec.name]!, operand);
  });
}

/** A typed array over the storage itself where the dtype has one, else a decoded copy. */
function decode({ bytes, dtype, length }: Located): Values {
  switch (dtype) {
    case "f32":
      return new Float32Array(bytes.buffer, bytes.byteOffset, length);
    case "f64":
      return new Float64Array(bytes.buffer, bytes.byteOffset, length);
    case "i32":
      return new Int32Array(bytes.buffer, bytes.byteOffset, length);
    case "bf16": {
      const codes = new Uint16Array(bytes.buffer, bytes.byteOffset, length);
      // Doubles, so that the only rounding to bf16 is the one at the store.
      return Float64Array.from(codes, bf16ToNumber);
    }
    case "f8e4m3":
      return Float64Array.from(bytes, e4m3ToNumber);
    case "e5m6":
      return unpackE5m6(bytes);
  }
}

/** Rounds what the kernel left in a decoded copy; other dtypes were written in place. */
function encode(values: Values, { bytes, dtype, length }: Located): void {
  if (dtype === "bf16") {
    const codes = new Uint16Array(bytes.buffer, bytes.byteOffset, length);
    for (let i = 0; i < length; i++) codes[i] = bf16FromNumber(values[i]!);
  } else if (dtype === "f8e4m3") {
    for (let i = 0; i < length; i++) bytes[i] = e4m3FromNumber(values[i]!);
  } else if (dtype === "e5m6") {
    packE5m6(values, bytes);
  }
}
