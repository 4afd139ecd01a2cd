import { setTimeout as sleep } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import { onRanks, rankBackends } from "../../../test/support/ranks.ts";
import { CollectiveError } from "../../base/index.ts";
import type { Communicator } from "./communicator.ts";
import { everyRank } from "./everyRank.ts";
import { type Ask, firstAlone, followFirst, hearFirst, isFirstsFailure } from "./firstAlone.ts";
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

interface Question {
  readonly owner: number;
  readonly factor: number;
}

/** Asks every other rank twice for its number times a factor, slowly, and returns what came. */
async function askAround(communicator: Communicator, ask: Ask<Question>): Promise<number[]> {
  const { device, size } = communicator;
  const heard: number[] = [];
  for (const factor of [10, 100]) {
    await sleep(1600);
    for (let owner = 1; owner < size; owner++) {
      using y = await ask({ owner, factor }, () => {
        const target = device.temporary([1], "f32");
        communicator.exchange([], [{ from: owner, y: target }]).wait();
        return target;
      });
      heard.push(...(await y.read()));
    }
  }
  return heard;
}

test.each(rankBackends)(
  "a task may ask the others, and take longer between two questions than a message may: %s",
  async (backend) => {
    const body = async (communicator: Communicator): Promise<number[]> => {
      const { rank, device } = communicator;
      if (rank === 0)
        return (await firstAlone<number[], Question>(
          communicator,
          (ask) => askAround(communicator, ask),
          60,
        ))!;
      return followFirst<number[], Question>(communicator, ({ owner, factor }) => {
        if (owner !== rank) return;
        communicator.exchange([{ to: 0, x: device.from([factor * rank], [1], "f32") }], []).wait();
      });
    };
    const wanted = [10, 20, 100, 200];
    expect(await onRanks(backend, 3, body, { timeoutSeconds: 1.2 })).toEqual([wanted, wanted, wanted]);
  },
);

test("a question whose answer finds no room is the task's error, and the others hear of its end", async () => {
  const outcomes = await everyRank(ranks(2), async (communicator) => {
    if (communicator.rank > 0) return hearFirst(communicator);
    const noRoom = (): never => {
      throw new RangeError("no room");
    };
    return firstAlone(communicator, (ask: Ask<string>) => ask("your part?", noRoom)).catch(String);
  });
  expect(outcomes).toEqual(["RangeError: no room", null]);
});

test("a rank that can do nothing without the first ends with an error that names it, and everyRank tells the first's", async () => {
  const others: unknown[] = [];
  const both = everyRank(ranks(2), (communicator) =>
    communicator.rank === 0
      ? firstAlone(communicator, () => Promise.reject(new Error("the disk is full")))
      : followFirst(communicator).catch((error: unknown) => {
          others.push(error);
          throw error;
        }),
  );
  await expect(both).rejects.toThrow("the disk is full");
  expect(others).toEqual([expect.any(CollectiveError)]);
  expect(String(others[0])).toMatch(/rank 0 has failed, and rank 1 ends with it/);
  expect(isFirstsFailure(others[0])).toBe(true);
  expect(isFirstsFailure(new Error("the disk is full"))).toBe(false);
});
