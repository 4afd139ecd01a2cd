import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { DiskError } from "../../base/index.ts";
import { freeBytes, requireFreeBytes, writeFileAtomic } from "./atomicFile.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "minke-file-"));
});
afterEach(() => rm(folder, { recursive: true }));

describe("writeFileAtomic", () => {
  test("replaces a file and leaves nothing else behind", async () => {
    const path = join(folder, "latest");
    await writeFile(path, "step-1\n");
    await writeFileAtomic(path, "step-2\n");
    expect(await readFile(path, "utf8")).toBe("step-2\n");
    expect(await readdir(folder)).toEqual(["latest"]);
  });

  test("a write that fails keeps the old file and removes the new half", async () => {
    const path = join(folder, "latest");
    await mkdir(path);
    await expect(writeFileAtomic(path, "x")).rejects.toThrow();
    expect(await readdir(folder)).toEqual(["latest"]);
  });

  test("readers that look at any moment see one of the two contents, whole", async () => {
    const path = join(folder, "latest");
    const contents = ["a".repeat(100_000), "b".repeat(200_000)];
    await writeFileAtomic(path, contents[0]!);
    let isDone = false;
    const seen = new Set<string>();
    const reader = (async () => {
      while (!isDone) seen.add(await readFile(path, "utf8"));
    })();
    for (let i = 0; i < 20; i++) await writeFileAtomic(path, contents[i % 2]!);
    isDone = true;
    await reader;
    expect(contents).toEqual(expect.arrayContaining([...seen]));
  });
});

describe("freeBytes", () => {
  test("tells the same for a folder and for what will be made in it", async () => {
    const here = await freeBytes(folder);
    expect(here).toBeGreaterThan(0);
    const later = await freeBytes(join(folder, "not", "yet"));
    expect(Math.abs(later - here)).toBeLessThan(1e9);
  });
});

describe("requireFreeBytes", () => {
  test("lets pass what fits", async () => {
    await requireFreeBytes(folder, 1, "one byte");
  });

  test("says how much is missing before anything is written", async () => {
    const needed = 2 ** 70;
    const error = await requireFreeBytes(folder, needed, "3 checkpoints").catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(DiskError);
    expect((error as DiskError).fields).toMatchObject({ path: folder, neededBytes: needed });
    expect((error as DiskError).what).toMatch(/ free, 1048576 PiB are needed for 3 checkpoints$/);
    expect(await readdir(folder)).toEqual([]);
  });
});
