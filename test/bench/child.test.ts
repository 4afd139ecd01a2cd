/** A terminal sends Ctrl-C to every process of the group in front; here the tests do. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, onTestFinished, test } from "vitest";
import { runChild } from "../../bench/child.ts";

const root = join(import.meta.dirname, "..", "..");

describe("runChild", () => {
  test("hands over the lines and the exit code; a program that does not exist is an error", async () => {
    const lines: string[] = [];
    const script = `console.log("one"); console.log("two"); process.exitCode = 3;`;
    const end = await runChild(process.execPath, ["-e", script], root, (line) => void lines.push(line));
    expect([lines, end]).toEqual([["one", "two"], { code: 3, isStopped: false }]);
    await expect(runChild("/nowhere/program", [], root, () => undefined)).rejects.toThrow("ENOENT");
    expect(process.listenerCount("SIGHUP")).toBe(0);
  });

  test("a Ctrl-C of the terminal reaches the program once, and who runs it learns of it", async () => {
    const program = `
      let count = 0;
      process.on("SIGINT", () => { if (++count === 1) setTimeout(() => { console.log("heard " + count); process.exit(0); }, 500); });
      setInterval(() => 0, 1000);
      console.log("ready");`;
    const runner = `
      import { runChild } from ${JSON.stringify(join(root, "bench", "child.ts"))};
      const end = await runChild(process.execPath, ["-e", ${JSON.stringify(program)}], ".", (line) => console.log(line));
      console.log(JSON.stringify(end));`;
    const args = ["--input-type=module", "-e", runner];
    // Detached: the leader of a group of its own, as what a shell starts from a terminal.
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"], detached: true });
    onTestFinished(() => void child.kill("SIGKILL"));
    const lines: string[] = [];
    for await (const line of createInterface({ input: child.stdout })) {
      lines.push(line);
      if (line === "ready") {
        await sleep(100);
        process.kill(-child.pid!, "SIGINT");
      }
    }
    expect(lines).toEqual(["ready", "heard 1", '{"code":0,"isStopped":true}']);
  });
});
