import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { scratchFolder } from "../../test/support/scratchFolder.ts";
import { writeTrainingText } from "../../test/support/trainingText.ts";
import { ConfigError } from "../base/index.ts";
import type { Isa } from "../tensor/index.ts";
import { byteTokenizer } from "../text/index.ts";
import { prepareData, type TrainConfig } from "../train/index.ts";
import { numericClass } from "./numericClass.ts";
import { closeRanks, type OpenRank, onEveryRank, openRanks } from "./openRanks.ts";
import type { PreparedRun } from "./prepareRun.ts";
import { beforePlan, gatherRequests, haveSameRun, hearPlan, requireSameRequest } from "./rankPlan.ts";
import { newConfig } from "./runConfig.ts";

async function onRanks<T>(ranks: number, body: (rank: OpenRank) => Promise<T>): Promise<T> {
  const opened = await openRanks({ ranks, backend: "reference" });
  onTestFinished(() => closeRanks(opened));
  return onEveryRank(opened, body);
}

test("ranks agree about what decides the run, whatever threads and words they were started with", async () => {
  const requests = await onRanks(3, (rank) =>
    gatherRequests(rank, { steps: 5, threads: 1 + rank.rank, command: [`host ${rank.rank}`] }),
  );
  expect(requests).toHaveLength(3);
  expect(() => requireSameRequest(requests)).not.toThrow();
});

test("the first rank that was asked for something else is named, with both requests", async () => {
  const requests = await onRanks(3, (rank) => gatherRequests(rank, { steps: 5, seed: rank.rank >> 1 }));
  expect(() => requireSameRequest(requests)).toThrow(ConfigError);
  expect(() => requireSameRequest(requests)).toThrow(
    /rank 2 was started with other arguments than rank 0\n.*rank 0 has .*"seed":0.*rank 2 has .*"seed":1/,
  );
  expect(() => requireSameRequest([])).not.toThrow();
});

test("what the first rank fails at before the plan is its own error; the others hear that there is no plan", async () => {
  const heard: unknown[] = [];
  const run = onRanks(3, async (rank) => {
    if (rank.rank > 0) heard.push(await hearPlan(rank));
    else await beforePlan(rank, () => Promise.reject(new Error("no such folder")));
  });
  await expect(run).rejects.toThrow("no such folder");
  expect(heard).toEqual([null, null]);
});

test("a rank that sees no run stops the first with its reason, and the others go no further", async () => {
  const goOn: boolean[] = [];
  const run = onRanks(2, async (rank) => {
    goOn.push(await haveSameRun(rank, { problem: `disk ${rank.rank} is not there` }, "fma"));
  });
  await expect(run).rejects.toThrow(/rank 0 does not see the run[\s\S]*disk 0 is not there/);
  expect(goOn).toEqual([false]);
});

async function preparedRun(): Promise<PreparedRun> {
  const root = await scratchFolder();
  await writeFile(join(root, "tokenizer.json"), "{}");
  const files = [await writeTrainingText(root, 20)];
  const { data: config } = newConfig({ preset: "unit" }, 1);
  const data = await prepareData(join(root, "data"), byteTokenizer(), {
    files,
    config,
    rowLength: 16,
    seed: 1,
  });
  onTestFinished(() => data.train.close());
  return { tokenizer: byteTokenizer(), data, events: [] };
}

test("ranks whose arithmetic gives other bits are refused before the first step, and both classes are named", async () => {
  const prepared = await preparedRun();
  const compare = (classes: readonly string[]): Promise<boolean> =>
    onRanks(classes.length, (rank) => haveSameRun(rank, prepared, classes[rank.rank]!));
  expect(await compare(["amx", "amx", "amx"])).toBe(true);
  await expect(compare(["amx", "amx", "fma"])).rejects.toThrow(ConfigError);
  await expect(compare(["amx", "amx", "fma"])).rejects.toThrow(
    /rank 2 computes with fma arithmetic where rank 0 does with amx[\s\S]*--precision f32/,
  );
});

test("AMX is a class of its own where products are bf16, and nowhere else", () => {
  const classOf = (isa: Isa, precision: TrainConfig["precision"]): string =>
    numericClass({ native: { isa } }, precision);
  expect(classOf("amx", "bf16")).toBe("amx");
  expect(classOf("amx", "fp8")).toBe("amx");
  expect(classOf("amx", "f32")).toBe("fma");
  expect(classOf("avx2", "bf16")).toBe("fma");
  expect(numericClass({ native: null }, "bf16")).toBe("reference");
});
