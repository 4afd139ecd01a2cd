import { readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { scratchFolder } from "../../test/support/scratchFolder.ts";
import { writeTrainingText } from "../../test/support/trainingText.ts";
import { DataError, type JsonObject, RunError } from "../base/index.ts";
import { createRun } from "../run/index.ts";
import type { TrainConfig } from "../train/index.ts";
import { openPrepared, prepareRun } from "./prepareRun.ts";
import { newConfig } from "./runConfig.ts";

async function makeRun(tokenizer: string): Promise<{ root: string; config: TrainConfig }> {
  const folder = await scratchFolder();
  const set = [`data.tokenizer=${tokenizer}`, "model.vocabSize=300", "rowLength=16"];
  const config = newConfig({ preset: "unit", data: [await writeTrainingText(folder, 40)], set }, 1);
  const run = await createRun(join(folder, "run"), {
    version: "0",
    command: [],
    config: config as unknown as JsonObject,
  });
  onTestFinished(() => run.close());
  return { root: run.paths.root, config };
}

function prepared(root: string, config: TrainConfig): ReturnType<typeof prepareRun> {
  return prepareRun(root, config, new AbortController().signal, () => undefined);
}

test("what a run's folder holds is opened as it was prepared, though the text is gone", async () => {
  const { root, config } = await makeRun("null");
  const made = await prepared(root, config);
  await rm(config.data.paths[0]!);
  const found = await openPrepared(root);
  onTestFinished(async () => {
    for (const { data } of [made, found]) await data.train.close();
  });
  expect(found.data.index).toEqual(made.data.index);
  expect(found.data.train.digest).toBe(made.data.train.digest);
  expect(found.tokenizer.encode("the whale sings")).toEqual(made.tokenizer.encode("the whale sings"));
  expect(found.events).toEqual([]);
});

test("what is missing in a run's folder is named, and neither tokenizer nor data are made in its place", async () => {
  const { root, config } = await makeRun("bytes");
  const before = await readdir(root);
  await expect(openPrepared(root)).rejects.toThrow(RunError);
  await expect(openPrepared(root)).rejects.toThrow(/tokenizer\.json cannot be read\n.*first rank makes it/);
  expect(await readdir(root)).toEqual(before);

  const made = await prepared(root, config);
  await made.data.train.close();
  await rename(join(root, "data", "index.json"), join(root, "index.json"));
  await expect(openPrepared(root)).rejects.toThrow(DataError);
  await expect(openPrepared(root)).rejects.toThrow(/data holds no prepared data/);
  expect(await readdir(join(root, "data"))).not.toContain("index.json");

  await expect(openPrepared(join(root, "..", "elsewhere"))).rejects.toThrow(/is not a run folder/);
});
