/**
 * The native backend with a record of what ran: each command with its time, its place in the model, its cost.
 *
 * The queue measures times only while a trace is on, and commands are noted down only here, so that a run without
 * a trace pays nothing. Commands run in the order in which they were enqueued: the n-th time belongs to the n-th note.
 */
import { invariant } from "../../../base/index.ts";
import { BYTES_PER_ELEMENT } from "../../dtype.ts";
import { type Param, paramValue } from "../../hostScalar.ts";
import type { Kernel } from "../../kernel.ts";
import type { Backend, Endpoint, Operand } from "../backend.ts";
import type { NativeBackend } from "./native.ts";

/** One command as it ran. */
export interface TracedCommand {
  readonly op: string;
  /** The parameter or the place in the model; empty where the op was given none. */
  readonly label: string;
  /** Nanoseconds since the trace began. */
  readonly begin: number;
  readonly end: number;
  /** A multiply-add counts as two. */
  readonly flops: number;
  /** Bytes that had to move at least once. */
  readonly bytes: number;
}

type Note = Pick<TracedCommand, "op" | "label" | "flops" | "bytes">;

export class TracedBackend implements Backend {
  readonly name = "native";
  readonly description: string;
  readonly #native: NativeBackend;
  #notes: Note[] | null = null;

  constructor(native: NativeBackend) {
    this.#native = native;
    this.description = `${native.description}, traced`;
  }

  /** Begins an empty trace. The queue must be idle: a command that waits in it would be timed but not noted. */
  start(): void {
    this.#notes = [];
    this.#native.setTrace(true);
  }

  /** Commands since `start` or the last call; all of them must have run to their end. */
  take(): readonly TracedCommand[] {
    const notes = this.#notes?.splice(0) ?? [];
    const spans = this.#native.takeTrace();
    invariant(
      spans.length === notes.length && spans.every(({ op }, i) => op === notes[i]!.op),
      `${spans.length} commands ran where ${notes.length} were noted`,
    );
    return spans.map(({ begin, end }, i) => ({ ...notes[i]!, begin, end }));
  }

  stop(): void {
    this.#notes = null;
    this.#native.setTrace(false);
  }

  enqueue(
    kernel: Kernel,
    operands: readonly (Operand | null)[],
    params: readonly Param[],
    label: string,
  ): void {
    if (this.#notes !== null) {
      const named = Object.fromEntries(kernel.params.map((name, i) => [name, paramValue(params[i]!)]));
      const sizes = operands.map((operand) =>
        operand === null ? 0 : operand.length * BYTES_PER_ELEMENT[operand.dtype],
      );
      const cost = { flops: kernel.flops(named), bytes: kernel.bytes(named, sizes) };
      this.#notes.push({ op: kernel.name, label, ...cost });
    }
    this.#native.enqueue(kernel, operands, params, label);
  }

  /** Builds every time: the commands of a replay would not pass by here to be noted. */
  record(build: () => void): null {
    build();
    return null;
  }

  allocate(): void {
    this.#native.allocate();
  }

  release(): void {
    this.#native.release();
  }

  connect(transport: Endpoint | bigint): void {
    this.#native.connect(transport);
  }

  write(target: Operand, bytes: Uint8Array): void {
    this.#native.write(target, bytes);
  }

  read(source: Operand): Promise<Uint8Array> {
    return this.#native.read(source);
  }

  drain(): Promise<void> {
    return this.#native.drain();
  }

  dispose(): Promise<void> {
    return this.#native.dispose();
  }
}
