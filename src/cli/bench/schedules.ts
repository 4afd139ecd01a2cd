/**
 * `minke bench schedules`: what pipelines lose, measured beside what the simulator says. Chunks are timed waits and
 * messages are real, in this process or under mpirun.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { keepTrace } from "../../api/index.ts";
import { UsageError } from "../../base/index.ts";
import {
  accountTimeline,
  type PipelinePlan,
  planSchedule,
  type RankSpans,
  type Schedule,
  type SimulationCosts,
  schedules,
  simulate,
  withTravel,
} from "../../parallel/index.ts";
import { explained } from "../../run/index.ts";
import { mean, openPacedRanks, shortest } from "./pacedRanks.ts";
import type { BenchRow } from "./row.ts";

export interface ScheduleFlags {
  readonly ranks?: number;
  readonly microBatches: number;
  readonly schedule?: Schedule;
  readonly pace?: string;
  readonly rounds: number;
  readonly trace?: string;
  readonly json?: boolean;
}

/** Tokens and width of what goes from stage to stage. */
const SHAPE = [128, 128] as const;
/** F = W = B - W, as in the schedules' formulas; long beside what a busy machine takes to wake a thread. */
const PACE: SimulationCosts = { chunks: { forward: 0.05, backward: 0.1, weight: 0.05, overlapped: 0.15 } };

/** Rows on rank 0; other ranks play along and yield nothing. */
export async function* benchSchedules(flags: ScheduleFlags): AsyncGenerator<BenchRow> {
  const costs = flags.pace === undefined ? PACE : await readPace(flags.pace);
  const ranks = openPacedRanks();
  try {
    const sizes = ranks.size !== null ? [ranks.size] : flags.ranks === undefined ? [4, 8] : [flags.ranks];
    for (const size of sizes) {
      for (const schedule of flags.schedule === undefined ? schedules : [flags.schedule]) {
        const plan = planSchedule(schedule, { ranks: size, microBatches: flags.microBatches });
        const run = { plan, costs, shape: SHAPE, pairs: "unit" } as const;
        const rounds = await ranks.measure(size, run, flags.rounds);
        if (!ranks.isFirst) continue;
        const { spans, row } = compare(plan, costs, rounds);
        yield { ...row, carrier: ranks.carrier };
        if (flags.trace !== undefined) await keepTrace(join(flags.trace, `${schedule}-${size}`), spans);
      }
    }
  } finally {
    await ranks.close();
  }
}

function compare(
  plan: PipelinePlan,
  costs: SimulationCosts,
  rounds: readonly (readonly RankSpans[])[],
): { readonly spans: readonly RankSpans[]; readonly row: BenchRow } {
  const { spans, account } = shortest(
    rounds.map((round) => ({ spans: round, account: accountTimeline(withTravel(round)) })),
  );
  const expected = simulate(plan, costs);
  // What a rank waits for, on the way or not sent yet, is time in which it computes nothing.
  const idle = mean(account.ranks.map(({ bubble, exposedCommunication }) => bubble + exposedCommunication));
  const bubble = mean(expected.bubbles);
  const row = {
    bench: "schedules" as const,
    name: `${plan.schedule}, ${plan.ranks} ranks, ${plan.microBatches} micro-batches`,
    milliseconds: (account.end - account.start) * 1000,
    simulatedMilliseconds: expected.makespan * 1000,
    bubbleMilliseconds: idle * 1000,
    ofItExposedMilliseconds: mean(account.ranks.map((rank) => rank.exposedCommunication)) * 1000,
    simulatedBubbleMilliseconds: bubble * 1000,
    // A schedule without a bubble has one of rounding errors.
    bubbleRatio: Math.abs(bubble) < 1e-9 ? null : idle / bubble,
  };
  return { spans, row };
}

/** @throws {UsageError} if the file has no costs */
async function readPace(file: string): Promise<SimulationCosts> {
  const text = await explained(file, "read the pace", () => readFile(file, "utf8"));
  const refuse = (why: string): UsageError =>
    new UsageError(`${file} has no times of chunks`, {
      why,
      fix: 'write {"chunks": {"forward": 0.05, "backward": 0.1, "weight": 0.05, "overlapped": 0.15}}, in seconds',
      fields: { file },
    });
  let costs: unknown;
  try {
    costs = JSON.parse(text);
  } catch (error) {
    throw refuse(error instanceof Error ? error.message : String(error));
  }
  if (typeof costs !== "object" || costs === null || !("chunks" in costs))
    throw refuse("it has no key chunks");
  // The simulator looks at every number before it takes it.
  return costs as SimulationCosts;
}
