import { once } from "node:events";
import { describe, expect, test } from "vitest";
import { startModule } from "../../../test/support/childProcess.ts";
import { isRunning, thisProcess } from "./processIdentity.ts";

describe("a process's identity", () => {
  test("of this process is the same whenever it is asked", () => {
    expect(thisProcess()).toEqual(thisProcess());
    expect(thisProcess().pid).toBe(process.pid);
    expect(isRunning(thisProcess())).toBe(true);
  });

  test("as another process writes it down is recognised here, until that process is killed", async () => {
    const module = JSON.stringify(new URL("./processIdentity.ts", import.meta.url).href);
    const script = `
      import { thisProcess } from ${module};
      console.log(JSON.stringify(thisProcess()));
      setInterval(() => {}, 1000);`;
    const child = startModule(script);
    const [line] = (await once(child.stdout!, "data")) as [Buffer];
    const written = JSON.parse(line.toString()) as ReturnType<typeof thisProcess>;
    expect(written.pid).toBe(child.pid);
    expect(isRunning(written)).toBe(true);
    child.kill("SIGKILL");
    await once(child, "exit");
    expect(isRunning(written)).toBe(false);
  });

  test("two processes that live at the same time differ in more than their id", async () => {
    const child = startModule("console.log('up'); setInterval(() => {}, 1000)");
    await once(child.stdout!, "data");
    const { startTime } = thisProcess();
    expect(isRunning({ pid: child.pid!, startTime })).toBe(startTime === null);
    child.kill("SIGKILL");
    await once(child, "exit");
  });

  test("an id that no process has is not running, whatever its start time", () => {
    for (const startTime of [null, "", thisProcess().startTime]) {
      expect(isRunning({ pid: 2 ** 22 + 1, startTime })).toBe(false);
    }
  });
});
