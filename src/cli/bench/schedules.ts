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
    const wanted = flags.schedule === undefined ? schedules : [flags.schedule];
    // All of them before the first is measured: what one cannot have must not be found out after the others.
    const plans = sizes.map((size) =>
      wanted.map((schedule) => planSchedule(schedule, { ranks: size, microBatches: flags.microBatches })),
    );
    for (const [i, size] of sizes.entries()) {
      for (const plan of plans[i]!) {
        const run = { plan, costs, shape: SHAPE, pairs: "unit" } as const;
        const rounds = await ranks.measure(size, run, flags.rounds);
        if (!ranks.isFirst) continue;
        const { spans, row } = compare(plan, costs, rounds);
        yield { ...row, carrier: ranks.carrier };
        if (flags.trace !== undefined) await keepTrace(join(flags.trace, `${plan.schedule}-${size}`), spans);
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
  const text = await readFile(file, "utf8").catch((cause: unknown) => {
    throw new UsageError(`${file} cannot be read`, {
      why: `the times of chunks would be in it: ${cause instanceof Error ? cause.message : String(cause)}`,
      fix: "check the path; it is relative to the folder in which minke was started",
      fields: { file },
      cause,
    });
  });
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
  const chunks = isRecord(costs) ? costs["chunks"] : undefined;
  if (!isRecord(chunks)) throw refuse("it has no key chunks");
  for (const name of ["forward", "backward", "weight", "overlapped"]) {
    const seconds = chunks[name];
    if (typeof seconds !== "number" || !(seconds >= 0 && Number.isFinite(seconds)))
      throw refuse(`chunks.${name} is ${JSON.stringify(seconds)}`);
  }
  return costs as unknown as SimulationCosts;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}
