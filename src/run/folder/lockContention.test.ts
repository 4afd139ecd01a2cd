import { once } from "node:events";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { startModule } from "../../../test/support/childProcess.ts";
import { acquireLock, readLock, releaseLock } from "./lock.ts";

let folder: string;
let path: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "minke-contention-"));
  path = join(folder, "lock");
});
afterEach(() => rm(folder, { recursive: true }));

const module = JSON.stringify(new URL("./lock.ts", import.meta.url).href);

/** A process that tries to take the lock when told to, says how it went, and lives on. */
class Rival {
  readonly process: ReturnType<typeof startModule>;
  readonly #lines: AsyncIterator<string>;

  constructor() {
    const script = `
      import { acquireLock } from ${module};
      process.stdin.once("data", async () => {
        const word = await acquireLock(${JSON.stringify(path)}).then(() => "mine", (error) => error.name);
        console.log(word);
      });
      console.log("ready");`;
    this.process = startModule(script);
    this.#lines = createInterface({ input: this.process.stdout! })[Symbol.asyncIterator]();
  }

  async says(): Promise<string> {
    return (await this.#lines.next()).value as string;
  }

  take(): void {
    this.process.stdin!.write("now\n");
  }

  async kill(): Promise<void> {
    this.process.kill("SIGKILL");
    await once(this.process, "exit");
  }
}

describe("real processes", () => {
  test("of three that start at once one owns the folder; killed, it hands it to one of the next", async () => {
    const rivals = [new Rival(), new Rival(), new Rival()];
    for (const rival of rivals) expect(await rival.says()).toBe("ready");
    for (const rival of rivals) rival.take();
    const words = await Promise.all(rivals.map((rival) => rival.says()));
    expect(words.toSorted()).toEqual(["RunError", "RunError", "mine"]);

    const owner = rivals[words.indexOf("mine")]!;
    expect((await readLock(path))!.pid).toBe(owner.process.pid);
    await expect(acquireLock(path)).rejects.toThrow(`is held by process ${owner.process.pid}`);
    await owner.kill();

    const attempts = await Promise.allSettled([acquireLock(path), acquireLock(path)]);
    const taken = attempts.filter((attempt) => attempt.status === "fulfilled");
    expect(taken).toHaveLength(1);
    expect(taken[0]!.value.takenFrom!.pid).toBe(owner.process.pid);
    await releaseLock(taken[0]!.value);
    expect(await readdir(folder)).toEqual([]);
  });
});
