/**
 * Runs the built command line as a user does: a process of its own, in a folder of its own.
 *
 * dist/ is built first where it is missing or older than src/; a lock keeps two test files from building at once.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, globSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { onTestFinished } from "vitest";
import { BaseError } from "../../src/base/index.ts";
import { acquireLock, type Lock, releaseLock } from "../../src/run/folder/lock.ts";

const root = join(import.meta.dirname, "..", "..");
const entry = join(root, "bin", "minke.js");

export interface Outcome {
  readonly stdout: string;
  readonly stderr: string;
  /** 128 + n where signal n ended the process, as a shell says it. */
  readonly code: number;
}

export interface MinkeOptions {
  readonly cwd: string;
  /** Text on standard input; empty by default. */
  readonly input?: string;
}

/** Runs `minke ARGS...` to its end. */
export async function minke(args: readonly string[], options: MinkeOptions): Promise<Outcome> {
  return (await startMinke(args, options)).finished;
}

export interface Started {
  readonly child: ChildProcess;
  readonly finished: Promise<Outcome>;
}

/** Starts `minke ARGS...`; a test that ends early takes the process with it. */
export async function startMinke(args: readonly string[], options: MinkeOptions): Promise<Started> {
  return startProgram(process.execPath, [await builtEntry(), ...args], options);
}

/** Starts any program with its output collected: a shell around minke, a terminal. */
export function startProgram(program: string, args: readonly string[], options: MinkeOptions): Started {
  const child = spawn(program, args, { cwd: options.cwd, env: { ...process.env, NO_COLOR: "1" } });
  const kill = (): void => void child.kill("SIGKILL");
  onTestFinished(kill);
  const collected = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name].setEncoding("utf8");
    child[name].on("data", (text: string) => {
      collected[name] += text;
    });
  }
  // A process that ends without reading its input breaks the pipe; its exit code tells all there is to tell.
  child.stdin.on("error", () => undefined);
  child.stdin.end(options.input ?? "");
  const finished = new Promise<Outcome>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      resolve({ ...collected, code: code ?? (signal === "SIGKILL" ? 137 : 128) });
    });
  });
  return { child, finished };
}

let built: Promise<string> | undefined;

/** The path of the program that `npx minke` runs, over a dist/ that was up to date when this process first asked. */
export function builtEntry(): Promise<string> {
  built ??= buildIfStale();
  return built;
}

async function buildIfStale(): Promise<string> {
  if (isStale()) {
    const lock = await waitForLock(join(tmpdir(), `minke-build-${root.replaceAll(/\W/g, "-")}.lock`));
    try {
      if (isStale()) build();
    } finally {
      await releaseLock(lock);
    }
  }
  return entry;
}

function isStale(): boolean {
  const built = join(root, "dist", "cli", "main.js");
  if (!existsSync(built)) return true;
  const sources = globSync("src/**/*.ts", { cwd: root, exclude: ["**/*.test.ts"] });
  const compiled = (path: string): string => join(root, path.replace(/^src/, "dist").replace(/\.ts$/, ".js"));
  return sources.some((path) => {
    const target = statSync(compiled(path), { throwIfNoEntry: false });
    return target === undefined || target.mtimeMs < statSync(join(root, path)).mtimeMs;
  });
}

function build(): void {
  const compiler = join(root, "node_modules", "typescript", "bin", "tsc");
  const { status, stdout } = spawnSync(process.execPath, [compiler, "-p", root], { encoding: "utf8" });
  if (status !== 0) throw new Error(`dist/ could not be built:\n${stdout}`);
}

async function waitForLock(path: string): Promise<Lock> {
  while (true) {
    try {
      return await acquireLock(path);
    } catch (error) {
      if (!BaseError.isInstance(error)) throw error;
      await sleep(100);
    }
  }
}
