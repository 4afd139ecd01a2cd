/**
 * A program that takes timed steps on request, in a process of its own: ours, PyTorch's, another library's.
 *
 * It prints one line {"ready": true, ...} once it is warm and answers each line on its input with one line of JSON.
 * Whatever else it prints is its own affair; the end of what it wrote on standard error is shown if it fails.
 */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { BackendError, BaseError, formatDuration } from "../../base/index.ts";

export interface ContestantSpec {
  /** For people: "PyTorch bf16 compiled". */
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  /** Building the model, warming up, and for compilers compiling. */
  readonly readyTimeoutMs: number;
  /** For one answer after that. */
  readonly answerTimeoutMs: number;
  /** Variables besides those of this process. */
  readonly environment?: Readonly<Record<string, string>>;
}

/** True of an error that this contestant is to blame for, and not one that took turns with it. */
export function isFaultOf({ name }: ContestantSpec, error: unknown): error is BaseError {
  return BaseError.isInstance(error) && error.fields["contestant"] === name;
}

export type Answer = Readonly<Record<string, unknown>>;

/** Characters of standard error that a failure shows. */
const TAIL = 2000;
/** Between being asked to leave and being made to. */
const KILL_AFTER_MS = 5000;
/** Between the end of the process and that of its output, which something that it started may hold open. */
const CLOSE_AFTER_MS = 1000;

export class Contestant implements Disposable {
  readonly spec: ContestantSpec;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #stop: AbortSignal;
  readonly #onStop = (): void => this[Symbol.dispose]();
  /** Who waits for the next line; answers come in the order of the questions, one at a time. */
  #waiting: { resolve: (answer: Answer) => void; reject: (error: Error) => void } | null = null;
  #errors = "";
  #settings: Answer = {};
  /** Why no answer will come any more. */
  #end: string | null = null;
  #isDisposed = false;
  /** `process.exit` (a second Ctrl-C, a reader that left) leaves no time to ask. */
  readonly #onExit = (): void => this.#signal("SIGKILL");

  /** Starts it and waits until it is ready; `stop` ends it at any time. */
  static async start(spec: ContestantSpec, stop: AbortSignal): Promise<Contestant> {
    stop.throwIfAborted();
    const contestant = new Contestant(spec, stop);
    try {
      contestant.#settings = await contestant.#next(spec.readyTimeoutMs, "before it was ready");
      return contestant;
    } catch (error) {
      contestant[Symbol.dispose]();
      throw error;
    }
  }

  private constructor(spec: ContestantSpec, stop: AbortSignal) {
    this.spec = spec;
    this.#stop = stop;
    stop.addEventListener("abort", this.#onStop, { once: true });
    // A group of its own: compilers start workers, and all of them must go when this goes.
    // Before the folders that they write into are removed.
    process.prependListener("exit", this.#onExit);
    const env = { ...process.env, ...spec.environment };
    this.#child = spawn(spec.command, [...spec.args], { stdio: "pipe", detached: true, env });
    this.#child.stderr.setEncoding("utf8").on("data", (text: string) => {
      this.#errors = (this.#errors + text).slice(-TAIL);
    });
    // A process that ends breaks the pipe; its end is told below.
    this.#child.stdin.on("error", () => undefined);
    this.#child.on("error", (error) => {
      // Of a program that could not be started there is no exit.
      if (this.#child.pid === undefined) process.off("exit", this.#onExit);
      this.#ended(error.message);
    });
    this.#child.on("exit", (code, signal) => this.#exited(code === null ? `${signal}` : `exit code ${code}`));
    createInterface({ input: this.#child.stdout }).on("line", (line) => this.#heard(line));
  }

  /** What it said of itself when it was ready: versions, threads, sizes. */
  get settings(): Answer {
    return this.#settings;
  }

  /** True once it answers no more, whatever the reason. */
  get hasEnded(): boolean {
    return this.#end !== null;
  }

  /** Sends a line and waits for the answer to it. */
  ask(line: string): Promise<Answer> {
    const answer = this.#next(this.spec.answerTimeoutMs, `at "${line}"`);
    this.#child.stdin.write(`${line}\n`);
    return answer;
  }

  /** Seconds of `count` steps, as it measured them itself. */
  async step(count: number): Promise<Answer & { readonly seconds: number }> {
    const answer = await this.ask(`step ${count}`);
    const { seconds } = answer;
    if (typeof seconds !== "number" || !(seconds > 0))
      throw this.#failure(`answered ${JSON.stringify(answer)} where seconds were asked for`);
    return { ...answer, seconds };
  }

  /** What it started goes with it; one that does not leave when asked is killed. */
  [Symbol.dispose](): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.#stop.removeEventListener("abort", this.#onStop);
    this.#child.stdin.end();
    if (this.#hasExited) return;
    this.#signal("SIGTERM");
    const timer = setTimeout(() => this.#signal("SIGKILL"), KILL_AFTER_MS).unref();
    this.#child.once("exit", () => clearTimeout(timer));
  }

  get #hasExited(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  /** To its whole group. */
  #signal(name: NodeJS.Signals): void {
    const { pid } = this.#child;
    if (pid === undefined) return;
    try {
      process.kill(-pid, name);
    } catch {
      // The whole group has ended already.
    }
  }

  #next(timeoutMs: number, when: string): Promise<Answer> {
    return new Promise<Answer>((resolve, reject) => {
      if (this.#end !== null) {
        reject(this.#failure(`ended ${when} (${this.#end})`));
        return;
      }
      const timer = setTimeout(() => {
        const what = `said nothing for ${formatDuration(timeoutMs / 1000)} ${when}`;
        settle(() => reject(this.#failure(what)));
        // An answer that comes after all would be taken for that to the next question.
        this.#end = `it ${what}`;
        this[Symbol.dispose]();
      }, timeoutMs);
      const settle = (how: () => void): void => {
        clearTimeout(timer);
        this.#waiting = null;
        how();
      };
      this.#waiting = {
        resolve: (answer) => settle(() => resolve(answer)),
        reject: (error) => settle(() => reject(this.#failure(`ended ${when} (${error.message})`))),
      };
    });
  }

  #heard(line: string): void {
    const answer = parsed(line);
    if (answer === null) return;
    if (typeof answer["error"] === "string")
      this.#errors = `${this.#errors}\n${answer["error"]}`.slice(-TAIL);
    // Two answers to one question: the second would be taken for that to the next.
    if (this.#waiting === null) this.#end ??= `it said ${line.slice(0, 200)} when nothing was asked`;
    this.#waiting?.resolve(answer);
  }

  #exited(how: string): void {
    // Workers without their leader are of no use, and hold its output open.
    this.#signal("SIGKILL");
    process.off("exit", this.#onExit);
    // What it said last may still be on its way.
    const timer = setTimeout(() => this.#ended(how), CLOSE_AFTER_MS);
    this.#child.once("close", () => {
      clearTimeout(timer);
      this.#ended(how);
    });
  }

  #ended(how: string): void {
    this.#end ??= how;
    this.#waiting?.reject(new Error(how));
  }

  #failure(what: string): BackendError {
    const { name, command, args } = this.spec;
    const said = this.#errors.trim();
    return new BackendError(`${name} ${what}`, {
      why: said === "" ? "it wrote nothing on standard error" : said,
      fix: `run it by hand: ${[command, ...args].join(" ")}`,
      fields: { contestant: name, said },
    });
  }
}

function parsed(line: string): Answer | null {
  if (!line.startsWith("{")) return null;
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null ? { ...value } : null;
  } catch {
    return null;
  }
}
