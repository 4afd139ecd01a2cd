import { setTimeout as sleep } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import type { Communicator } from "./communicator.ts";
import { everyRank } from "./everyRank.ts";
import { firstAlone, hearFirst } from "./firstAlone.ts";
import { inProcess } from "./inProcess.ts";
import { broadcastJson } from "./json.ts";

function ranks(count: number, timeoutSeconds: number = 5): readonly Communicator[] {
  const communicators = inProcess(count, { backend: "reference", limitBytes: 2 ** 24, timeoutSeconds });
  onTestFinished(async () => {
    for (const { device } of communicators) await device.dispose();
  });
  return communicators;
}

test("the first rank works alone and all have its value", async () => {
  let calls = 0;
  const task = async (): Promise<{ step: number }> => ({ step: ++calls });
  const heard = await everyRank(ranks(3), (communicator) => firstAlone(communicator, task));
  expect(heard).toEqual([{ step: 1 }, { step: 1 }, { step: 1 }]);
  expect(calls).toBe(1);
});

test("a task may take longer than a message: those who wait are told to wait on", async () => {
  const slow = async (): Promise<string> => {
    await sleep(700);
    return "done";
  };
  const heard = await everyRank(ranks(2, 0.4), (communicator) => firstAlone(communicator, slow, 100));
  expect(heard).toEqual(["done", "done"]);
});

test("a task that throws does so on the first rank alone; the others hear null, and all can go on", async () => {
  const outcomes = await everyRank(ranks(3), async (communicator) => {
    const outcome =
      communicator.rank === 0
        ? await firstAlone(communicator, () => Promise.reject(new Error("no room"))).catch(String)
        : await hearFirst<string>(communicator);
    return [outcome, await broadcastJson(communicator, "next", 0)];
  });
  expect(outcomes).toEqual([
    ["Error: no room", "next"],
    [null, "next"],
    [null, "next"],
  ]);
});
