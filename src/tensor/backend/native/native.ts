/**
 * The native backend: a thread with its own pool executes commands in order, so JavaScript only writes them down.
 *
 * A command is a handful of numbers. What can fail in a kernel comes back through reads and drains, as one error
 * that names the op, the parameter and the shapes.
 */
import { availableParallelism, totalmem } from "node:os";
import { BackendError, type BaseError, invariant } from "../../../base/index.ts";
import { BYTES_PER_ELEMENT, DTYPE_CODE } from "../../dtype.ts";
import { type HostScalar, type Param, paramValue } from "../../hostScalar.ts";
import type { Kernel } from "../../kernel.ts";
import type { Backend, Endpoint, Operand } from "../backend.ts";
import { connecting, messageFailure } from "../messageFailure.ts";
import { type Isa, isNativeFailure, loadAddon, type NativePool, type NativeQueue } from "./addon.ts";
import { NativeHubEndpoint } from "./hub.ts";

export interface NativeOptions {
  /** Threads that compute; all of the machine's by default. */
  readonly threads?: number;
  /** Threads shared with other backends of this process, instead of `threads` of its own. */
  readonly pool?: NativePool;
  /** Forces an instruction set; the best by default. */
  readonly isa?: Isa;
  /** Address space for tensors in bytes; the machine's memory by default. */
  readonly reserveBytes?: number;
  /** Another addon than the package's own. */
  readonly file?: string;
}

/** Commands noted down while they are enqueued, each behind the number of its words. */
interface Notes {
  readonly words: number[];
  readonly labels: string[];
  readonly scalars: { readonly at: number; readonly scalar: HostScalar }[];
}

/** Their failures are as a rule another rank's, not a bug. */
const MESSAGE_OPS: ReadonlySet<string> = new Set(["postSend", "postReceive", "awaitMessages"]);

/** Labels kept for error messages: a failing command is looked up by its number. */
const LABELS_KEPT = 65_536;

export class NativeBackend implements Backend {
  readonly name = "native";
  readonly canDefer = true;
  readonly description: string;
  readonly isa: Isa;
  readonly threads: number;
  readonly reserveBytes: number;
  readonly #queue: NativeQueue;
  readonly #codes: ReadonlyMap<string, number>;
  readonly #labels: string[] = [];
  #commands = 0;
  #notes: Notes | null = null;
  #failure: BaseError | null = null;

  /** @throws {BackendError} if the addon cannot be loaded, with the reason and what to install */
  constructor(options: NativeOptions = {}) {
    const { addon, reason } = loadAddon(options.file);
    if (addon === null) {
      throw new BackendError("the native backend cannot be used", {
        why: reason,
        fix: "install Rust (https://rustup.rs) and run npm run build; the reference backend works without it, slowly",
        fields: { reason },
      });
    }
    const { ops, parallelism } = addon.info();
    const { pool } = options;
    this.threads = pool?.threads ?? options.threads ?? Math.min(parallelism, availableParallelism());
    this.reserveBytes = options.reserveBytes ?? totalmem();
    this.#codes = new Map(ops.map((name, code) => [name, code]));
    const { threads, reserveBytes } = this;
    const given = {
      ...(options.isa !== undefined && { isa: options.isa }),
      ...(pool !== undefined && { pool }),
    };
    this.#queue = this.#started(() => addon.createQueue({ threads, reserveBytes, ...given }));
    this.isa = this.#queue.isa;
    this.description = `native backend: ${this.isa}, ${this.threads} thread${this.threads === 1 ? "" : "s"}`;
  }

  #started(create: () => NativeQueue): NativeQueue {
    try {
      return create();
    } catch (cause) {
      const { threads, reserveBytes } = this;
      const why = cause instanceof Error ? cause.message : String(cause);
      const fewer = `use fewer threads: this machine has ${availableParallelism()} cores, so --threads ${availableParallelism()}`;
      throw new BackendError(`the native backend does not start with ${threads} threads`, {
        why,
        fix: why.startsWith("cannot reserve")
          ? "let this process have as much address space as the machine has memory (ulimit -v unlimited)"
          : fewer,
        fields: { threads, reserveBytes },
        cause,
      });
    }
  }

  /** Names of the kernels that native code has. */
  get kernels(): readonly string[] {
    return [...this.#codes.keys()];
  }

  // Addresses are decided by the arena in TypeScript; pages are committed when they are first touched.
  allocate(): void {}
  release(): void {}
  // Who wants to know what ran puts a TracedBackend around it.
  mark(): void {}

  enqueue(
    kernel: Kernel,
    operands: readonly (Operand | null)[],
    params: readonly Param[],
    label: string,
  ): void {
    const code = this.#codes.get(kernel.name);
    invariant(code !== undefined, `native code has no kernel ${kernel.name}`);
    const { words } = this.#queue;
    let at = 0;
    words[at++] = code;
    for (const operand of operands) {
      words[at++] = operand === null ? -1 : operand.base + operand.offset;
      words[at++] = operand === null ? 0 : DTYPE_CODE[operand.dtype];
    }
    const firstParam = at;
    for (const param of params) words[at++] = paramValue(param);
    this.#labels[this.#commands++ % LABELS_KEPT] = label;
    this.#queue.submit(at);
    if (this.#notes === null) return;
    const { words: noted, labels, scalars } = this.#notes;
    noted.push(at);
    for (const [i, param] of params.entries()) {
      if (typeof param !== "number") scalars.push({ at: noted.length + firstParam + i, scalar: param });
    }
    noted.push(...words.subarray(0, at));
    labels.push(label);
  }

  record(build: () => void): () => void {
    const notes: Notes = { words: [], labels: [], scalars: [] };
    this.#notes = notes;
    try {
      build();
    } finally {
      this.#notes = null;
    }
    const { labels, scalars } = notes;
    const words = Float64Array.from(notes.words);
    return () => {
      for (const { at, scalar } of scalars) words[at] = scalar.value;
      for (const label of labels) this.#labels[this.#commands++ % LABELS_KEPT] = label;
      this.#queue.submitList(words);
    };
  }

  connect(transport: Endpoint | bigint): void {
    if (typeof transport !== "bigint" && !(transport instanceof NativeHubEndpoint)) {
      throw new BackendError("the native backend cannot be connected to this transport", {
        why: "it speaks with native queues only, in this process or through a transport's table",
        fix: "connect an endpoint of a NativeHub, or use the reference backend on every rank",
        fields: { backend: this.name },
      });
    }
    connecting(() => this.#queue.connect(typeof transport === "bigint" ? transport : transport.endpoint));
  }

  write(target: Operand, bytes: Uint8Array): void {
    this.#queue.write(target.base + target.offset, bytes);
  }

  read(source: Operand): Promise<Uint8Array> {
    const bytes = source.length * BYTES_PER_ELEMENT[source.dtype];
    return this.#explained(this.#queue.read(source.base + source.offset, bytes));
  }

  drain(): Promise<void> {
    return this.#explained(this.#queue.drain());
  }

  /** Register peak of the machine, multiplications and additions a second. */
  peak(kind: "f32" | "bf16", seconds: number, threads: number = this.threads): Promise<number> {
    return this.#explained(this.#queue.peak(kind, seconds, threads));
  }

  /** Starts or stops noting when each command ran. */
  setTrace(on: boolean): void {
    this.#queue.setTrace(on);
  }

  /** Commands that ran since the last call: kernel name, begin and end in nanoseconds. */
  takeTrace(): readonly { readonly op: string; readonly begin: number; readonly end: number }[] {
    const names = this.kernels;
    const flat = this.#queue.takeTrace();
    return Array.from({ length: flat.length / 3 }, (_, i) => ({
      op: names[flat[3 * i]!] ?? "?",
      begin: flat[3 * i + 1]!,
      end: flat[3 * i + 2]!,
    }));
  }

  dispose(): Promise<void> {
    return this.#queue.dispose();
  }

  #explained<T>(promise: Promise<T>): Promise<T> {
    const explained = promise.catch((error: unknown) => {
      throw this.#explain(error);
    });
    // Whoever awaits it is told; a failure that nobody awaits must not end the process.
    explained.catch(() => undefined);
    return explained;
  }

  /** One error for one failure, however many reads it rejects. */
  #explain(error: unknown): unknown {
    if (!isNativeFailure(error)) return error;
    if (this.#failure !== null) return this.#failure;
    const label =
      this.#commands - error.command <= LABELS_KEPT ? this.#labels[error.command % LABELS_KEPT] : "";
    const place = label === undefined || label === "" ? "" : ` at ${label}`;
    if (MESSAGE_OPS.has(error.op)) {
      this.#failure = messageFailure(error.op, label ?? "", error.reason, error);
      return this.#failure;
    }
    this.#failure = new BackendError(`${error.op}${place} failed: ${error.reason}`, {
      why:
        error.param === null
          ? "the kernel refused its operands or gave up"
          : `its operand ${error.param} is wrong`,
      fix: "run `minke doctor`; if its self-test passes, this is a bug in minke: report it with these lines",
      fields: { op: error.op, param: error.param, label, words: error.words },
      cause: error,
    });
    return this.#failure;
  }
}
