/** Programs that are measured: their lines, their end, and Ctrl-C handed on exactly once. */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

export interface ChildEnd {
  /** 1 where a signal ended it. */
  readonly code: number;
  /** True if this process was told to stop in the meantime. */
  readonly isStopped: boolean;
}

/**
 * Runs a program to its end and hands over what it prints line by line; its standard error is ours.
 *
 * It has a process group of its own. In ours, a terminal's Ctrl-C would reach it directly and once more through this
 * process, and to `minke train` a second one means: leave at once, without a checkpoint.
 */
export function runChild(
  program: string,
  args: readonly string[],
  cwd: string,
  onLine: (line: string, pid: number) => void,
): Promise<ChildEnd> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd, stdio: ["ignore", "pipe", "inherit"], detached: true });
    let isStopped = false;
    const stop = (name: NodeJS.Signals): void => {
      isStopped = true;
      try {
        if (child.pid !== undefined) process.kill(-child.pid, name);
      } catch {
        // It has ended already; "close" is on its way.
      }
    };
    const forget = (): void => SIGNALS.forEach((name) => void process.off(name, stop));
    for (const name of SIGNALS) process.on(name, stop);
    createInterface({ input: child.stdout }).on("line", (line) => onLine(line, child.pid ?? 0));
    child.on("error", (error) => {
      forget();
      reject(error);
    });
    child.on("close", (code) => {
      forget();
      resolve({ code: code ?? 1, isStopped });
    });
  });
}
