import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, onTestFinished, test } from "vitest";
import { onRanks, rankBackends } from "../../test/support/ranks.ts";
import { scratchFolder } from "../../test/support/scratchFolder.ts";
import { hashOf } from "../../test/support/tinyModel.ts";
import { midway, randomRows, tinyTrainConfig } from "../../test/support/tinyTraining.ts";
import { writeTrainingText } from "../../test/support/trainingText.ts";
import { DiskError, type JsonObject, type RunEventBody } from "../base/index.ts";
import { type Communicator, followFirst } from "../parallel/index.ts";
import { createRun, type RunFolder } from "../run/index.ts";
import { byteTokenizer } from "../text/index.ts";
import { type LoopState, prepareData, type Session, type TrainConfig, teamFor } from "../train/index.ts";
import type { OpenRank } from "./openRanks.ts";
import type { PreparedRun } from "./prepareRun.ts";
import {
  type FoundCheckpoint,
  openSession,
  type RunSession,
  restoreOrInitialize,
  startSession,
} from "./runSession.ts";
import { answering, stateEntries, type Wanted } from "./runState.ts";

const config: TrainConfig = tinyTrainConfig(
  { microBatchRows: 1, gradientShards: 4, precision: "bf16" },
  { vocabSize: 300 },
);
const scheduled = midway(config);

/** How a slow disk is imitated: longer than a rank waits for a message. */
const [TIMEOUT_SECONDS, SLOW_MS, BEAT_MS] = [1.5, 2000, 150];

const loop: LoopState = {
  step: 1,
  updates: 1,
  rowsSeen: 4,
  tokensSeen: 32,
  data: { epoch: 0, row: 4 },
  guard: { losses: [], norms: [], skippedInARow: 0, gradientSpikesInARow: 0 },
  validationLoss: null,
};

async function prepare(): Promise<{ folder: RunFolder; prepared: PreparedRun }> {
  const root = await scratchFolder();
  const folder = await createRun(join(root, "run"), {
    version: "0",
    command: [],
    config: config as unknown as JsonObject,
  });
  const data = await prepareData(join(root, "data"), byteTokenizer(), {
    files: [await writeTrainingText(root, 20)],
    config: config.data,
    rowLength: config.rowLength,
    seed: 1,
  });
  onTestFinished(async () => {
    await data.train.close();
    await folder.close();
  });
  return { folder, prepared: { tokenizer: byteTokenizer(), data, events: [] } };
}

function rankOf(communicator: Communicator, ep: number): OpenRank {
  const { rank, size, device } = communicator;
  const layout = { dp: size, ep, pp: 1, zero1: true, schedule: "dualpipe" } as const;
  return {
    device,
    native: null,
    warning: null,
    threads: 1,
    rank,
    team: teamFor(communicator, layout),
    job: null,
  };
}

async function step({ runner }: Session, seed: number): Promise<number> {
  const record = await runner.compute(randomRows(config.batchRows, config, seed), scheduled);
  runner.commit(scheduled);
  return record.loss;
}

/** Every number that a rank would find again. */
async function heldState(session: Session): Promise<Map<string, string>> {
  const held = new Map<string, string>();
  for (const { name, parts } of stateEntries(session))
    for (const { tensor, start } of parts)
      if (tensor !== null) held.set(`${name} ${start}`, await hashOf(tensor));
  for (const { path, master } of session.factory.parameters) held.set(path, await hashOf(master));
  return held;
}

describe.each(rankBackends)("on ranks of the %s backend", (backend) => {
  test.each([1, 2])(
    "a checkpoint that takes longer to write than a message may is written, and the run goes on; ep=%i",
    async (ep) => {
      const { folder, prepared } = await prepare();
      const events: RunEventBody[] = [];
      const body = async (communicator: Communicator): Promise<unknown> => {
        const rank = rankOf(communicator, ep);
        let session: Session;
        if (rank.rank === 0) {
          const run = await startSession({ folder, isResumed: false }, config, prepared, rank, BEAT_MS);
          session = run.session;
          await step(session, 3);
          await saveSlowly(run, events);
        } else {
          session = openSession(rank, config, prepared);
          const { path } = await followFirst<FoundCheckpoint>(communicator);
          await restoreOrInitialize(session, path);
          await followFirst(communicator);
          await step(session, 3);
          await followFirst<string, Wanted>(communicator, answering(session, communicator));
        }
        const wanted = await heldState(session);
        const loss = await step(session, 4);
        // The same checkpoint on the same ranks: what was written is what they had.
        await restoreOrInitialize(session, join(folder.paths.checkpoints, "step-1"));
        expect(await heldState(session)).toEqual(wanted);
        expect(await step(session, 4)).toBe(loss);
        return session.dispose();
      };
      await onRanks(backend, 2, body, { timeoutSeconds: TIMEOUT_SECONDS });
      expect(events.map(({ type }) => type)).toEqual(["checkpoint.written"]);
    },
  );
});

/** The log is brought to the same slow disk first. */
async function saveSlowly(run: RunSession, events: RunEventBody[]): Promise<void> {
  const emit = (event: RunEventBody): void => void events.push(event);
  const path = await run.save(loop, "scheduled", emit, async () => {
    await sleep(SLOW_MS);
  });
  expect(path).toBe("checkpoints/step-1");
}

test("a checkpoint that cannot be written ends all ranks with the first one's error", async () => {
  const { folder, prepared } = await prepare();
  const full = new DiskError("the disk is full", { why: "it is", fix: "free some space" });
  const body = async (communicator: Communicator): Promise<void> => {
    const rank = rankOf(communicator, 1);
    if (rank.rank === 0) {
      const run = await startSession({ folder, isResumed: false }, config, prepared, rank);
      await run.save(
        loop,
        "scheduled",
        () => undefined,
        () => Promise.reject(full),
      );
      return;
    }
    const session = openSession(rank, config, prepared);
    const { path } = await followFirst<FoundCheckpoint>(communicator);
    await restoreOrInitialize(session, path);
    await followFirst(communicator);
    await followFirst<string, Wanted>(communicator, answering(session, communicator));
  };
  await expect(onRanks("reference", 2, body)).rejects.toBe(full);
});
