import { once } from "node:events";
import { mkdir, readdir, readFile, rename, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describe, expect, test } from "vitest";
import { startModule } from "../../test/support/childProcess.ts";
import { scratchFolder } from "../../test/support/scratchFolder.ts";
import { fill, keepAll, newRun, write } from "../../test/support/smallCheckpoints.ts";
import { DiskError } from "../base/index.ts";
import { openRun, type RunFolder, readLatest } from "../run/index.ts";
import { requireWhole, verifyCheckpoint } from "./manifest.ts";
import { CheckpointStore } from "./store.ts";

async function names(run: RunFolder): Promise<string[]> {
  return (await readdir(run.paths.checkpoints)).sort();
}

describe("a checkpoint that is written", () => {
  test("lies under its step's name, whole, and is called latest", async () => {
    const run = await newRun();
    const store = new CheckpointStore(run, keepAll);
    const { written, removed } = await store.write(7, 2.5, 0, fill(7));
    const path = join(run.paths.checkpoints, "step-7");
    expect(written).toEqual({ step: 7, path, bytes: 1007 + '{"step":7}'.length });
    expect(removed).toEqual([]);
    expect(await names(run)).toEqual(["step-7"]);
    expect(await readLatest(run.paths.root)).toBe("step-7");
    expect(await verifyCheckpoint(path)).toEqual({ reason: null, bytes: written.bytes });
    expect(await store.open()).toEqual({ found: written, damaged: [] });
  });

  test("has a manifest with every file's size and hash, as other programs compute it", async () => {
    const run = await newRun();
    await write(new CheckpointStore(run, keepAll), 3, 1.25);
    const text = await readFile(join(run.paths.checkpoints, "step-3", "manifest.json"), "utf8");
    expect(JSON.parse(text)).toEqual({
      schema: 1,
      step: 3,
      validationLoss: 1.25,
      files: {
        // printf '{"step":3}' | sha256sum
        "config.json": {
          bytes: 10,
          sha256: "f2c76473acac2fa2146cd9615b918e8ae33033c5a78dd320338b04ac6fa438ab",
        },
        // head -c 1003 /dev/zero | tr '\0' '\3' | sha256sum
        "weights.bin": {
          bytes: 1003,
          sha256: "b57bb2d077f280bbbf17e686fe72a7b01ef8b7cad2b801b14379ed74e89146e4",
        },
      },
    });
  });

  test("takes the place of an older one of the same step", async () => {
    const run = await newRun();
    const store = new CheckpointStore(run, keepAll);
    await write(store, 5);
    await store.write(5, null, 0, (folder) => writeFile(join(folder, "config.json"), "new"));
    expect(await names(run)).toEqual(["step-5"]);
    expect(await readFile(join(run.paths.checkpoints, "step-5", "config.json"), "utf8")).toBe("new");
    expect((await store.open()).damaged).toEqual([]);
  });

  test("leaves nothing behind, and latest where it was, if filling it fails at any point", async () => {
    const run = await newRun();
    const store = new CheckpointStore(run, keepAll);
    await write(store, 1);
    const failures: readonly ((folder: string) => Promise<void>)[] = [
      () => Promise.reject(new Error("before")),
      async (folder) => {
        await fill(2)(folder);
        throw new Error("after");
      },
      async (folder) => {
        await fill(2)(folder);
        await rm(folder, { recursive: true });
      },
    ];
    for (const failing of failures)
      await expect(store.write(2, null, 0, failing)).rejects.toThrow(/before|after|is not there/);
    expect(await names(run)).toEqual(["step-1"]);
    expect(await readLatest(run.paths.root)).toBe("step-1");
    expect((await store.open()).found?.step).toBe(1);
  });

  test("explains a full disk in the words of the catalogue", async () => {
    const store = new CheckpointStore(await newRun(), keepAll);
    const full = store.write(2, null, 0, () => {
      throw Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
    });
    await expect(full).rejects.toThrow(DiskError);
    await expect(full).rejects.toThrow(/cannot write a checkpoint: no space left/);
  });

  test("is not begun if the disk cannot hold it", async () => {
    const run = await newRun();
    const store = new CheckpointStore(run, keepAll);
    let isFilled = false;
    const tooLarge = store.write(2, null, 2 ** 60, async () => {
      isFilled = true;
    });
    await expect(tooLarge).rejects.toThrow(DiskError);
    await expect(tooLarge).rejects.toThrow(/1024 PiB are needed for a checkpoint/);
    expect(isFilled).toBe(false);
    expect(await names(run)).toEqual([]);
  });
});

describe("a process that is killed while it writes", () => {
  test("leaves the checkpoint before as it was; what it had begun is swept up", async () => {
    const run = await newRun();
    await write(new CheckpointStore(run, keepAll), 1);
    await run.close();
    const address = (file: string): string => JSON.stringify(new URL(file, import.meta.url).href);
    const child = startModule(`
      import { writeFile } from "node:fs/promises";
      import { openRun } from ${address("../run/index.ts")};
      import { CheckpointStore } from ${address("./store.ts")};
      const run = await openRun(${JSON.stringify(run.paths.root)});
      const store = new CheckpointStore(run, ${JSON.stringify(keepAll)});
      await store.write(2, null, 0, async (folder) => {
        await writeFile(folder + "/config.json", "{}");
        console.log("half way");
        await new Promise((resolve) => setTimeout(resolve, 60_000));
      });`);
    const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    expect((await lines.next()).value).toBe("half way");
    child.kill("SIGKILL");
    await once(child, "exit");

    const again = await openRun(run.paths.root);
    expect((await names(again)).map((name) => name.replace(/-[0-9a-f]{8}-.*/, ""))).toEqual([
      ".writing-step-2",
      "step-1",
    ]);
    const store = new CheckpointStore(again, keepAll);
    expect(await store.open()).toMatchObject({ found: { step: 1 }, damaged: [] });
    await store.clean();
    expect(await names(again)).toEqual(["step-1"]);
    await again.close();
  });
});

describe("a process that is killed while one checkpoint takes another's place", () => {
  test("has lost neither: the old one comes back if the new one had not been named yet", async () => {
    const run = await newRun();
    const store = new CheckpointStore(run, keepAll);
    await write(store, 5);
    const at = (name: string): string => join(run.paths.checkpoints, name);
    await rename(at("step-5"), at(".replaced-step-5"));
    await mkdir(at(".writing-step-5-x"));
    await store.clean();
    expect(await names(run)).toEqual(["step-5"]);
    expect(await store.open()).toMatchObject({ found: { step: 5 }, damaged: [] });
  });

  test("keeps the new one if it had been named, and sweeps the old one up", async () => {
    const run = await newRun();
    const store = new CheckpointStore(run, keepAll);
    await write(store, 5);
    const at = (name: string): string => join(run.paths.checkpoints, name);
    await mkdir(at(".replaced-step-5"));
    await store.clean();
    expect(await names(run)).toEqual(["step-5"]);
    expect((await store.open()).damaged).toEqual([]);
  });

  test("never sees a moment at which the step has no folder, by its name or aside", async () => {
    const run = await newRun();
    const store = new CheckpointStore(run, keepAll);
    await write(store, 5);
    const seen: string[][] = [];
    let isDone = false;
    const watching = (async () => {
      while (!isDone) seen.push(await names(run));
    })();
    for (let i = 0; i < 20; i++) await write(store, 5);
    isDone = true;
    await watching;
    expect(seen.length).toBeGreaterThan(20);
    for (const found of seen)
      expect(
        found.some((name) => /^(\.replaced-)?step-5$/.test(name)),
        `${found}`,
      ).toBe(true);
  });
});

describe("opening", () => {
  test("finds nothing in a run without checkpoints, and nothing is called damaged", async () => {
    const run = await newRun();
    expect(await new CheckpointStore(run, keepAll).open()).toEqual({ found: null, damaged: [] });
    await rm(run.paths.checkpoints, { recursive: true });
    expect(await new CheckpointStore(run, keepAll).open()).toEqual({ found: null, damaged: [] });
  });

  test("takes a checkpoint that was renamed but never called latest", async () => {
    const run = await newRun();
    const store = new CheckpointStore(run, keepAll);
    await write(store, 1);
    await write(store, 2);
    await run.writeLatest("step-1");
    expect((await store.open()).found?.step).toBe(2);
  });

  test("takes steps in the order of numbers, not of names", async () => {
    const run = await newRun();
    const store = new CheckpointStore(run, keepAll);
    for (const step of [9, 10, 100]) await write(store, step);
    expect((await store.open()).found?.step).toBe(100);
  });

  test.each<[string, (folder: string) => Promise<unknown>, RegExp]>([
    ["a file is gone", (folder) => rm(join(folder, "weights.bin")), /weights\.bin is missing/],
    [
      "a file is cut",
      (folder) => truncate(join(folder, "weights.bin"), 3),
      /weights\.bin has 3 bytes, 1030 were written/,
    ],
    [
      "one bit is another",
      async (folder) => {
        const bytes = await readFile(join(folder, "weights.bin"));
        bytes[77]! ^= 4;
        await writeFile(join(folder, "weights.bin"), bytes);
      },
      /weights\.bin is not what was written \(sha256 differs\)/,
    ],
    [
      "the manifest is gone",
      (folder) => rm(join(folder, "manifest.json")),
      /manifest\.json is missing or damaged/,
    ],
    [
      "the manifest is no JSON",
      (folder) => writeFile(join(folder, "manifest.json"), '{"sch'),
      /manifest\.json is/,
    ],
    [
      "the manifest is null",
      (folder) => writeFile(join(folder, "manifest.json"), "null"),
      /manifest\.json is/,
    ],
    [
      "the manifest is empty",
      (folder) => writeFile(join(folder, "manifest.json"), "{}"),
      /manifest\.json is/,
    ],
    [
      "the manifest lists no sizes",
      (folder) =>
        writeFile(
          join(folder, "manifest.json"),
          '{"schema":1,"step":30,"validationLoss":null,"files":{"a":3}}',
        ),
      /manifest\.json is/,
    ],
    ["the folder is gone", (folder) => rm(folder, { recursive: true }), /manifest\.json is missing/],
  ])("passes over the newest if %s, says why, and takes the one before", async (_, damage, reason) => {
    const run = await newRun();
    const store = new CheckpointStore(run, keepAll);
    for (const step of [10, 20, 30]) await write(store, step);
    const newest = join(run.paths.checkpoints, "step-30");
    await damage(newest);
    const { found, damaged } = await store.open();
    expect(found?.step).toBe(20);
    expect(damaged).toHaveLength(1);
    expect(damaged[0]).toMatchObject({ step: 30, path: newest });
    expect(damaged[0]!.reason).toMatch(reason);
  });

  test("names every damaged one on the way, newest first, and finds none if none is whole", async () => {
    const run = await newRun();
    const store = new CheckpointStore(run, keepAll);
    for (const step of [1, 2, 3]) await write(store, step);
    for (const step of [1, 2, 3]) await rm(join(run.paths.checkpoints, `step-${step}`, "weights.bin"));
    const { found, damaged } = await store.open();
    expect(found).toBeNull();
    expect(damaged.map(({ step }) => step)).toEqual([3, 2, 1]);
  });

  test("leaves alone what has no name of a checkpoint", async () => {
    const run = await newRun();
    const store = new CheckpointStore(run, { keepNewest: 1, keepEvery: 0, keepBest: false });
    for (const name of ["notes", "step-x", "step-3.old", "old-step-9"])
      await mkdir(join(run.paths.checkpoints, name));
    await write(store, 1);
    await write(store, 2);
    await store.clean();
    expect(await names(run)).toEqual(["notes", "old-step-9", "step-2", "step-3.old", "step-x"]);
    expect(await store.open()).toMatchObject({ found: { step: 2 }, damaged: [] });
  });
});

describe("retention", () => {
  test("keeps the newest ones and says which it let go", async () => {
    const run = await newRun();
    const store = new CheckpointStore(run, { keepNewest: 2, keepEvery: 0, keepBest: false });
    const removed: (readonly number[])[] = [];
    for (const step of [5, 10, 15, 20]) removed.push(await write(store, step));
    expect(removed).toEqual([[], [], [5], [10]]);
    expect(await names(run)).toEqual(["step-15", "step-20"]);
  });

  test("keeps multiples of a step beside them", async () => {
    const run = await newRun();
    const store = new CheckpointStore(run, { keepNewest: 1, keepEvery: 10, keepBest: false });
    for (const step of [5, 10, 15, 20, 25]) await write(store, step);
    expect(await names(run)).toEqual(["step-10", "step-20", "step-25"]);
  });

  test("keeps the best by held-out loss until a better one comes; those without a loss are no candidates", async () => {
    const run = await newRun();
    const store = new CheckpointStore(run, { keepNewest: 1, keepEvery: 0, keepBest: true });
    const left: string[][] = [];
    for (const [step, loss] of [
      [1, null],
      [2, 3],
      [3, 2],
      [4, 2.5],
      [5, null],
      [6, 1.5],
      [7, 1.6],
    ] as const) {
      await write(store, step, loss);
      left.push(await names(run));
    }
    expect(left).toEqual([
      ["step-1"],
      ["step-2"],
      ["step-3"],
      ["step-3", "step-4"],
      ["step-3", "step-5"],
      ["step-6"],
      ["step-6", "step-7"],
    ]);
  });

  test("never lets go what has just been written, though damaged ones carry higher steps", async () => {
    const run = await newRun();
    const store = new CheckpointStore(run, { keepNewest: 1, keepEvery: 0, keepBest: false });
    await write(store, 40);
    await rm(join(run.paths.checkpoints, "step-40", "weights.bin"));
    await write(store, 30);
    expect((await store.open()).found?.step).toBe(30);
    expect(await readLatest(run.paths.root)).toBe("step-30");
  });

  test("counts none of the damaged ones among the newest that it keeps", async () => {
    const run = await newRun();
    const store = new CheckpointStore(run, { keepNewest: 2, keepEvery: 0, keepBest: false });
    for (const step of [20, 40]) await write(store, step);
    await rm(join(run.paths.checkpoints, "step-40", "weights.bin"));
    expect(await write(store, 30)).toEqual([]);
    expect(await names(run)).toEqual(["step-20", "step-30", "step-40"]);
    expect(await write(store, 40)).toEqual([20]);
    expect((await store.open()).damaged).toEqual([]);
  });
});

describe("requireWhole", () => {
  test("passes what is whole, and folders of others that carry no hashes", async () => {
    const run = await newRun();
    await write(new CheckpointStore(run, keepAll), 1);
    await requireWhole(join(run.paths.checkpoints, "step-1"));
    const foreign = await scratchFolder();
    await writeFile(join(foreign, "config.json"), "{}");
    await requireWhole(foreign);
  });

  test("refuses a damaged one, also if it is the manifest that is damaged", async () => {
    const run = await newRun();
    await write(new CheckpointStore(run, keepAll), 1);
    const path = join(run.paths.checkpoints, "step-1");
    await writeFile(join(path, "config.json"), "{}");
    await expect(requireWhole(path)).rejects.toThrow(/is damaged: config\.json has 2 bytes, 10 were written/);
    await writeFile(join(path, "manifest.json"), "");
    await expect(requireWhole(path)).rejects.toThrow(/is damaged: manifest\.json is missing or damaged/);
  });
});
