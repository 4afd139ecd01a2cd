/**
 * `minke bench schedules`: what pipelines lose, measured and as the simulator says. Chunks are timed waits and messages
 * are real, in this process or under mpirun.
 */
import { readFile } from "node:fs/promises";
import { BackendError, UsageError } from "../../base/index.ts";
import {
  accountTimeline,
  type Communicator,
  everyRank,
  gatherJson,
  inProcess,
  joinMpi,
  launcherOf,
  type PipelinePlan,
  planSchedule,
  type RankSpans,
  type SimulationCosts,
  schedules,
  simulate,
  withTravel,
} from "../../parallel/index.ts";
import { explained } from "../../run/index.ts";
import { loadAddon, NativeBackend, QueueDevice, TracedBackend } from "../../tensor/index.ts";
import { type PacedRun, runPaced } from "../../train/index.ts";
import type { BenchRow } from "./row.ts";

export interface ScheduleFlags {
  readonly ranks: readonly string[];
  readonly microBatches: number;
  readonly pace?: string;
  readonly rounds: number;
  readonly json?: boolean;
}

const LIMIT = 2 ** 27;
/** Tokens and width of what goes from stage to stage: those of a micro-batch of the preset micro. */
const SHAPE = [128, 128] as const;
/** Forward, its full backward, the weights' part, and both at once: F = W = B - W, as in the schedules' formulas. */
const PACE: SimulationCosts = { chunks: { forward: 0.02, backward: 0.04, weight: 0.02, overlapped: 0.06 } };

/** Rows on rank 0; other ranks play along and yield nothing. */
export async function* benchSchedules(flags: ScheduleFlags): AsyncGenerator<BenchRow> {
  const { addon, reason } = loadAddon();
  if (addon === null) {
    throw new BackendError("there is nothing to measure without the native backend", {
      why: reason,
      fix: "install Rust (https://rustup.rs), then npm run build",
    });
  }
  const costs = flags.pace === undefined ? PACE : await readPace(flags.pace);
  yield* launcherOf(process.env) === null ? inThisProcess(flags, costs) : underMpi(flags, costs);
}

async function* inThisProcess(flags: ScheduleFlags, costs: SimulationCosts): AsyncGenerator<BenchRow> {
  for (const ranks of flags.ranks.length === 0 ? [4, 8] : flags.ranks.map(Number)) {
    for (const plan of plansFor(ranks, flags.microBatches)) {
      const worlds = inProcess(ranks, { backend: "native", limitBytes: LIMIT, threads: 1, isTraced: true });
      try {
        const rounds: RankSpans[][] = [];
        for (let i = 0; i < flags.rounds; i++) {
          rounds.push(await everyRank(worlds, (world) => runPaced(world, pacedRun(plan, costs))));
        }
        yield scheduleRow("in one process", plan, costs, rounds);
      } finally {
        for (const { device } of worlds) await device.dispose();
      }
    }
  }
}

async function* underMpi(flags: ScheduleFlags, costs: SimulationCosts): AsyncGenerator<BenchRow> {
  const job = joinMpi();
  const native = new NativeBackend({ threads: 1, reserveBytes: LIMIT });
  const device = new QueueDevice(new TracedBackend(native), LIMIT);
  const world = job.communicator(device);
  for (const plan of plansFor(world.size, flags.microBatches)) {
    const rounds = await measureRounds(world, pacedRun(plan, costs), flags.rounds);
    if (world.rank === 0) yield scheduleRow(`by ${job.library}`, plan, costs, rounds);
  }
  await device.dispose();
  await job.leave();
}

/** Every rank's spans on every rank, for each round. */
async function measureRounds(world: Communicator, run: PacedRun, count: number): Promise<RankSpans[][]> {
  const rounds: RankSpans[][] = [];
  for (let i = 0; i < count; i++) rounds.push(await gatherJson(world, await runPaced(world, run)));
  return rounds;
}

function plansFor(ranks: number, microBatches: number): readonly PipelinePlan[] {
  return schedules.map((schedule) => planSchedule(schedule, { ranks, microBatches }));
}

function pacedRun(plan: PipelinePlan, costs: SimulationCosts): PacedRun {
  return { plan, costs, shape: SHAPE };
}

/** Of the round in which the machine's other work disturbed least: the shortest. */
function scheduleRow(
  carrier: string,
  plan: PipelinePlan,
  costs: SimulationCosts,
  rounds: readonly (readonly RankSpans[])[],
): BenchRow {
  const measured = rounds
    .map((round) => accountTimeline(withTravel(round)))
    .reduce((best, one) => (one.end - one.start < best.end - best.start ? one : best));
  const expected = simulate(plan, costs);
  const mean = (values: readonly number[]): number =>
    values.reduce((sum, value) => sum + value, 0) / values.length;
  // What a rank waits for, on the way or not sent yet, is time in which it computes nothing.
  const idle = mean(measured.ranks.map(({ bubble, exposedCommunication }) => bubble + exposedCommunication));
  const bubble = mean(expected.bubbles);
  return {
    bench: "schedules",
    name: `${plan.schedule}, ${plan.ranks} ranks, ${plan.microBatches} micro-batches`,
    carrier,
    milliseconds: (measured.end - measured.start) * 1000,
    simulatedMilliseconds: expected.makespan * 1000,
    bubbleMilliseconds: idle * 1000,
    simulatedBubbleMilliseconds: bubble * 1000,
    bubbleRatio: bubble === 0 ? null : idle / bubble,
  };
}

/** @throws {UsageError} if the file has no costs */
async function readPace(file: string): Promise<SimulationCosts> {
  const text = await explained(file, "read the pace", () => readFile(file, "utf8"));
  try {
    // Whatever else is in it, the simulator looks at every number before it takes it.
    return JSON.parse(text) as SimulationCosts;
  } catch (error) {
    throw new UsageError(`${file} is no JSON`, {
      why: error instanceof Error ? error.message : String(error),
      fix: 'write {"chunks": {"forward": 0.02, "backward": 0.04, "weight": 0.02, "overlapped": 0.06}}, in seconds',
      fields: { file },
    });
  }
}
