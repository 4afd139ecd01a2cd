/**
 * Every function of the native addon, typed in one screen, and how it is found and loaded.
 *
 * The functions are those of native/binding/src/lib.rs. A command is laid into `words`: the op's code
 * (its index in `info().ops`), then address and dtype code of each operand (-1 = absent), then the
 * numbers, both in the order of the kernel's contract.
 */

import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** Instruction sets, widest first. All give the same bits, but for bf16 products in AMX registers. */
export type Isa = "amx" | "avx512bf16" | "avx2" | "portable";

export interface NativeInfo {
  readonly version: string;
  /** Usable here, best first. */
  readonly isas: readonly Isa[];
  readonly cpuFeatures: readonly string[];
  /** Threads that can run at once. */
  readonly parallelism: number;
  /** Names of the ops; a command begins with an index into this list. */
  readonly ops: readonly string[];
}

export interface NativeQueueOptions {
  /** Threads that compute, the queue's own included. */
  readonly threads: number;
  /** Shared with other queues; `threads` is the pool's then. */
  readonly pool?: NativePool;
  /** A lower instruction set than the best; for tests and comparisons. */
  readonly isa?: Isa;
  /** Address space of the arena in bytes; pages are committed when first touched. */
  readonly reserveBytes: number;
}

/** What rejects the reads and drains of a poisoned or disposed queue. */
export interface NativeFailure extends Error {
  /** The op that failed; "dispose" if the queue was disposed first. */
  readonly op: string;
  /** The operand or parameter that is wrong, if it is one. */
  readonly param: string | null;
  /** What is wrong, without the names before it. */
  readonly reason: string;
  /** Number of the failing command since the queue began, the first being 0. */
  readonly command: number;
  /** The command as submitted. */
  readonly words: readonly number[];
}

/** What a queue can do. Nothing here blocks; a rejected promise is never unhandled on its own. */
export interface NativeQueue {
  readonly isa: Isa;
  /** The shared array that `submit` reads. */
  readonly words: Float64Array;
  /** Notes down the command in the first `length` words. */
  submit(length: number): void;
  /** Notes down commands one after another, each behind the number of its words. */
  submitList(list: Float64Array): void;
  /**
   * Where messages go from here on: an endpoint, or the address of a table as in native/mpi/transport.h. Throws if the
   * table is of another version.
   */
  connect(transport: NativeEndpoint | bigint): void;
  /** Copies `bytes` now, and into the arena in order. */
  write(address: number, bytes: Uint8Array): void;
  /** Resolves with a copy of the bytes as they are when the queue gets there. */
  read(address: number, length: number): Promise<Uint8Array>;
  drain(): Promise<void>;
  /** Register peak in multiplications and additions a second, measured in order on the queue's threads. */
  peak(kind: "f32" | "bf16", seconds: number, threads: number): Promise<number>;
  /** Switches the trace on (and empties it) or off. */
  setTrace(on: boolean): void;
  /** [op code, begin, end] of each command since the last call, in ns since the trace was switched on. */
  takeTrace(): Float64Array;
  /** Ends the queue after the command that runs now; what has not begun is rejected. */
  dispose(): Promise<void>;
}

/** Threads that several queues share: one of them computes at a time. */
export interface NativePool {
  readonly threads: number;
}

/** One rank of a hub. */
export interface NativeEndpoint {
  readonly rank: number;
  /** Ends what the other ranks wait for, now and later. Does not block. */
  abort(why: string): void;
}

/** Carries messages between queues of this process. */
export interface NativeHub {
  readonly ranks: number;
  /** Throws if there is no such rank. */
  endpoint(rank: number): NativeEndpoint;
}

export interface NativeAddon {
  readonly path: string;
  info(): NativeInfo;
  createQueue(options: NativeQueueOptions): NativeQueue;
  createPool(threads: number): NativePool;
  /** @param timeoutSeconds  how long an await waits for one ticket's messages */
  createHub(ranks: number, timeoutSeconds: number): NativeHub;
  /** Gives freed memory that malloc keeps back to the system; false where the C library cannot (all but glibc). */
  trimHeap(): boolean;
}

/** The loaded addon, or the reason why there is none. */
export type AddonResult =
  | { readonly addon: NativeAddon; readonly reason: null }
  | { readonly addon: null; readonly reason: string };

/** A queue as Node-API gives it: promises are bare, and each kind of transport has a function of its own. */
type BoundQueue = Omit<NativeQueue, "words" | "connect"> & {
  connect(endpoint: NativeEndpoint): void;
  connectTable(address: bigint): void;
};

/** The binding as Node-API gives it: `words` and the pool are handed in. */
interface Binding {
  info(): NativeInfo;
  createQueue(options: NativeQueueOptions, words: Float64Array, pool?: NativePool): BoundQueue;
  createPool(threads: number): NativePool;
  createHub(ranks: number, timeoutSeconds: number): NativeHub;
  trimHeap(): boolean;
}

/** Words of a queue's shared array; the longest command has fewer than sixty. */
const COMMAND_WORDS = 256;

/** Loads native/minke.<platform>-<arch>.node of this package; `file` names another one. */
export function loadAddon(file: string = addonPath()): AddonResult {
  try {
    // Whatever lies at that path is checked by name below, not trusted by type.
    const loaded: unknown = createRequire(import.meta.url)(file);
    if (!isBinding(loaded)) return { addon: null, reason: `${file} is no addon of this version` };
    const createQueue = (options: NativeQueueOptions): NativeQueue => wrapQueue(loaded, options);
    const addon: NativeAddon = {
      path: file,
      info: () => loaded.info(),
      createQueue,
      createPool: (threads) => loaded.createPool(threads),
      createHub: (ranks, timeoutSeconds) => loaded.createHub(ranks, timeoutSeconds),
      trimHeap: () => loaded.trimHeap(),
    };
    return { addon, reason: null };
  } catch (error) {
    const why = error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error);
    return { addon: null, reason: `${file} cannot be loaded: ${why}` };
  }
}

/** True for what rejects a read or drain of a queue that cannot go on. */
export function isNativeFailure(error: unknown): error is NativeFailure {
  return error instanceof Error && "op" in error && "command" in error && "words" in error;
}

/** The addon lies beside src/ and dist/, whichever of them this file is in. */
function addonPath(): string {
  const here = dirname(fileURLToPath(import.meta.url));
  const root = join(here, "..", "..", "..", "..");
  return join(root, "native", `minke.${process.platform}-${process.arch}.node`);
}

function isBinding(value: unknown): value is Binding {
  if (typeof value !== "object" || value === null) return false;
  const functions: ReadonlyMap<string, unknown> = new Map(Object.entries(value));
  const names: readonly (keyof Binding)[] = ["info", "createQueue", "createPool", "createHub", "trimHeap"];
  return names.every((name) => typeof functions.get(name) === "function");
}

function wrapQueue(binding: Binding, options: NativeQueueOptions): NativeQueue {
  const words = new Float64Array(COMMAND_WORDS);
  const { pool, ...own } = options;
  const queue = binding.createQueue(own, words, pool);
  return {
    isa: queue.isa,
    words,
    submit: (length) => queue.submit(length),
    submitList: (list) => queue.submitList(list),
    connect: (transport) =>
      typeof transport === "bigint" ? queue.connectTable(transport) : queue.connect(transport),
    write: (address, bytes) => queue.write(address, bytes),
    read: (address, length) => handled(queue.read(address, length)),
    drain: () => handled(queue.drain()),
    peak: (kind, seconds, threads) => handled(queue.peak(kind, seconds, threads)),
    setTrace: (on) => queue.setTrace(on),
    takeTrace: () => queue.takeTrace(),
    dispose: () => handled(queue.dispose()),
  };
}

/** The same promise, with a listener: a failure that nobody awaits must not end the process. */
function handled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}
