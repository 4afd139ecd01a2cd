import { expect, onTestFinished, test } from "vitest";
import { ConfigError } from "../base/index.ts";
import { closeRanks, type OpenRank, onEveryRank, openRanks } from "./openRanks.ts";
import { beforePlan, gatherRequests, haveSameData, hearPlan, requireSameRequest } from "./rankPlan.ts";

function onRanks<T>(ranks: number, body: (rank: OpenRank) => Promise<T>): Promise<T> {
  const opened = openRanks({ ranks, backend: "reference" });
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
    goOn.push(await haveSameData(rank, { problem: `disk ${rank.rank} is not there` }));
  });
  await expect(run).rejects.toThrow(/rank 0 does not see the run[\s\S]*disk 0 is not there/);
  expect(goOn).toEqual([false]);
});
