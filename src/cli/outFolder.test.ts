import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { scratchFolder } from "../../test/support/scratchFolder.ts";
import { intoFolder } from "./outFolder.ts";

const rows = { doing: "write rows", keepsOff: ["index.json"] };

describe("intoFolder", () => {
  test("makes the folder, and takes it back with all above it that it made if the task fails", async () => {
    const root = await scratchFolder();
    const path = join(root, "a", "b");
    expect(await intoFolder(path, rows, () => readdir(path))).toEqual([]);
    const failing = intoFolder(join(root, "c", "d"), rows, () => Promise.reject(new Error("no text")));
    await expect(failing).rejects.toThrow("no text");
    expect(await readdir(root)).toEqual(["a"]);
  });

  test("leaves a folder that was there as it was", async () => {
    const root = await scratchFolder();
    await writeFile(join(root, "mine.txt"), "x");
    await expect(intoFolder(root, rows, () => Promise.reject(new Error("no text")))).rejects.toThrow();
    expect(await readdir(root)).toEqual(["mine.txt"]);
  });

  test("refuses before the task begins: another's folder, a file in the way", async () => {
    const root = await scratchFolder();
    await mkdir(join(root, "old"));
    await writeFile(join(root, "old", "index.json"), "{}");
    let isBegun = false;
    const task = async (): Promise<void> => {
      isBegun = true;
    };
    await expect(intoFolder(join(root, "old"), rows, task)).rejects.toThrow(/old already holds index\.json/);
    const below = join(root, "old", "index.json", "x");
    await expect(intoFolder(below, rows, task)).rejects.toThrow(/cannot write rows: .* in the way/);
    expect(isBegun).toBe(false);
  });
});
