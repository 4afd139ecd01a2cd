/**
 * A program that takes timed steps on request, in a process of its own: ours, PyTorch's, another library's.
 *
 * It prints one line {"ready": true, ...} once it is warm and answers each line on its input with one line of JSON.
 * Whatever else it prints is its own affair; the end of what it wrote on standard error is shown if it fails.
 */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { BackendError, formatDuration } from "../../base/index.ts";

export interface ContestantSpec {
  /** For people: "PyTorch bf16 compiled". */
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  /** Building the model, warming up, and for compilers compiling. */
  readonly readyTimeoutMs: number;
  /** For one answer after that. */
  readonly answerTimeoutMs: number;
}

export type Answer = Readonly<Record<string, unknown>>;

/** Characters of standard error that a failure shows. */
const TAIL = 2000;

export class Contestant implements Disposable {
  readonly spec: ContestantSpec;
  readonly #child: ChildProcessWithoutNullStreams;
  /** Who waits for the next line; answers come in the order of the questions, one at a time. */
  #waiting: { resolve: (answer: Answer) => void; reject: (error: Error) => void } | null = null;
  #errors = "";
  #settings: Answer = {};
  #end: string | null = null;

  /** Starts it and waits until it is ready; `stop` ends it at any time. */
  static async start(spec: ContestantSpec, stop: AbortSignal): Promise<Contestant> {
    stop.throwIfAborted();
    const contestant = new Contestant(spec);
    stop.addEventListener("abort", () => contestant[Symbol.dispose](), { once: true });
    try {
      contestant.#settings = await contestant.#next(spec.readyTimeoutMs, "before it was ready");
      return contestant;
    } catch (error) {
      contestant[Symbol.dispose]();
      throw error;
    }
  }

  private constructor(spec: ContestantSpec) {
    this.spec = spec;
    // A group of its own: compilers start workers, and all of them must go when this goes.
    this.#child = spawn(spec.command, [...spec.args], { stdio: "pipe", detached: true });
    this.#child.stderr.setEncoding("utf8").on("data", (text: string) => {
      this.#errors = (this.#errors + text).slice(-TAIL);
    });
    // A process that ends breaks the pipe; its end is told below.
    this.#child.stdin.on("error", () => undefined);
    this.#child.on("error", (error) => this.#ended(error.message));
    this.#child.on("close", (code, signal) => this.#ended(code === null ? `${signal}` : `exit code ${code}`));
    createInterface({ input: this.#child.stdout }).on("line", (line) => this.#heard(line));
  }

  /** What it said of itself when it was ready: versions, threads, sizes. */
  get settings(): Answer {
    return this.#settings;
  }

  /** True once its process has ended, whatever the reason. */
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

  [Symbol.dispose](): void {
    const { pid, exitCode } = this.#child;
    if (pid === undefined) return;
    this.#child.stdin.end();
    try {
      process.kill(-pid, exitCode === null ? "SIGTERM" : "SIGKILL");
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
        settle(() => reject(this.#failure(`said nothing for ${formatDuration(timeoutMs / 1000)} ${when}`)));
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
    this.#waiting?.resolve(answer);
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
      fields: { name, said },
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
