import { mkdir, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { scratchFolder } from "../../test/support/scratchFolder.ts";
import { keepAll, newRun, write } from "../../test/support/smallCheckpoints.ts";
import { CheckpointError } from "../base/index.ts";
import { findCheckpoint } from "./find.ts";
import { CheckpointStore } from "./store.ts";

describe("findCheckpoint", () => {
  test("takes a folder with config.json as it is", async () => {
    const folder = await scratchFolder();
    await writeFile(join(folder, "config.json"), "{}");
    expect(await findCheckpoint(folder)).toBe(folder);
  });

  test("takes the latest checkpoint of a run", async () => {
    const run = await newRun();
    const store = new CheckpointStore(run, keepAll);
    await write(store, 1);
    await write(store, 2);
    expect(await findCheckpoint(run.paths.root)).toBe(join(run.paths.root, "checkpoints", "step-2"));
  });

  test("says so if a run has none yet", async () => {
    const run = await newRun();
    await expect(findCheckpoint(run.paths.root)).rejects.toThrow(/is a run without a checkpoint/);
  });

  test("names the neighbour that was meant", async () => {
    const folder = await scratchFolder();
    await mkdir(join(folder, "nano-1"));
    await rename(join(folder, "nano-1"), join(folder, "my-nano-1"));
    const lost = findCheckpoint(join(folder, "my-nano-l"));
    await expect(lost).rejects.toThrow(CheckpointError);
    await expect(lost).rejects.toThrow(`did you mean ${join(folder, "my-nano-1")}?`);
  });

  test("has no neighbour to name where nothing is near, or where the folder itself is missing", async () => {
    const folder = await scratchFolder();
    await expect(findCheckpoint(join(folder, "x"))).rejects.toThrow(/does not exist[\s\S]*minke runs list/);
    await expect(findCheckpoint(join(folder, "a", "b", "c"))).rejects.toThrow(/does not exist/);
  });

  test("says so if the folder holds something else", async () => {
    await expect(findCheckpoint(await scratchFolder())).rejects.toThrow(/holds neither a run nor a model/);
  });
});
