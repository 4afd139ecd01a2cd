/** A rank that is not the first: it opens what the first has prepared, and takes the same steps in silence. */
import { followFirst } from "../parallel/index.ts";
import { parseTrainConfig, RowSampler, trainLoop } from "../train/index.ts";
import { collectGarbage } from "./collectGarbage.ts";
import { numericClass } from "./numericClass.ts";
import type { OpenRank } from "./openRanks.ts";
import { measureStepSeconds, openPrepared } from "./prepareRun.ts";
import { gatherRequests, haveSameRun, hearPlan, tellConfig } from "./rankPlan.ts";
import { type FoundCheckpoint, openSession, restoreOrInitialize, sampleText } from "./runSession.ts";
import { answering, type Wanted } from "./runState.ts";
import type { TrainOptions } from "./trainOptions.ts";

export async function followRun(
  rank: OpenRank,
  options: TrainOptions,
): Promise<{ readonly path: string; readonly isComplete: boolean }> {
  const { communicator } = rank.team!;
  const nothing = { path: "", isComplete: false };
  await gatherRequests(rank, options);
  const plan = await hearPlan(rank);
  if (plan === null) return nothing;
  let config = parseTrainConfig(plan.config, "run.json");
  const prepared = await openPrepared(plan.root).catch((error: unknown) => ({
    problem: error instanceof Error ? error.message : String(error),
  }));
  const goesOn = await haveSameRun(rank, prepared, numericClass(rank, config.precision));
  if ("problem" in prepared) return nothing;
  try {
    if (!goesOn) return nothing;
    if (plan.isMeasured) {
      await measureStepSeconds(rank, config, prepared.data);
      config = await tellConfig(rank, plan.config);
    }
    collectGarbage();
    const session = openSession(rank, config, prepared);
    const { path } = await followFirst<FoundCheckpoint>(communicator);
    const restored = await restoreOrInitialize(session, path);
    // The first one restores its own share, and tells what begins.
    await followFirst(communicator);
    await followFirst(communicator);
    const isComplete = await trainLoop({
      session,
      rows: new RowSampler(prepared.data.train, config.seed),
      validation: prepared.data.validation,
      from: restored?.loop ?? null,
      ...(options.trace === undefined
        ? {}
        : { trace: { steps: options.trace, keep: () => Promise.resolve() } }),
      signal: new AbortController().signal,
      hooks: {
        emit: () => undefined,
        sample: (prompt) => sampleText(session, prepared, prompt),
        save: () => followFirst<string, Wanted>(communicator, answering(session, communicator)),
        resumeCommand: "",
        peakFlopsPerSecond: null,
        flopsPerToken: 0,
        bytesPerToken: 1,
      },
    });
    await rank.device.drain();
    session.dispose();
    return { path: plan.root, isComplete };
  } finally {
    await prepared.data.train.close();
  }
}
