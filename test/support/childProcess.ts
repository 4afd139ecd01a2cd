/** A process of its own for tests that kill one; it never outlives its test, whatever that test's fate. */
import { type ChildProcess, spawn } from "node:child_process";
import { onTestFinished } from "vitest";

/** @param script  a module; it may import sources by their `file:` address */
export function startModule(script: string): ChildProcess {
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
    stdio: ["pipe", "pipe", 2],
  });
  onTestFinished(() => {
    child.kill("SIGKILL");
  });
  return child;
}
