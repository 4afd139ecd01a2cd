/**
 * `minke bench ranks`: the same step by one process and by ranks, in turns: what it costs to share it.
 *
 * By itself the ranks are queues of this process. Under mpirun each is a process, and the first also takes the steps
 * of one process, on all its threads, while the others wait.
 */
import { isFirstProcess, type OpenRanks, openDevice, openRanks } from "../../api/index.ts";
import { barrier } from "../../parallel/index.ts";
import type { TrainConfig } from "../../train/index.ts";
import { type BenchRow, type StepFlags, timing } from "./row.ts";
import { TimedTraining, workloadConfig } from "./workload.ts";

export interface RankFlags extends StepFlags {
  /** Absent under a launcher, which says it. */
  readonly ranks?: number;
}

/** One side of the comparison; where another process has no part in it, it has no training there. */
interface Side {
  readonly name: string;
  readonly ranks: OpenRanks;
  readonly trainings: readonly TimedTraining[];
  readonly seconds: number[];
  /** Of this process, in each step: less disturbed than the clock where the machine has other work. */
  readonly processorSeconds: number[];
}

/** Rows on the first rank; the processes of others play along and yield nothing. */
export async function* benchRanks(flags: RankFlags): AsyncGenerator<BenchRow> {
  const { threads } = flags;
  const own = threads === undefined ? {} : { threads };
  const alone: OpenRanks = {
    own: [{ ...openDevice({ threads }), rank: 0, team: null, job: null }],
    launch: null,
    job: null,
  };
  const shared =
    isFirstProcess() && flags.ranks !== undefined
      ? await manyInProcess(flags.ranks, own)
      : [await openRanks(own)];
  const last = shared.at(-1)!;
  const count = last.launch!.ranks;
  const change = (config: TrainConfig): TrainConfig => cut(config, count);
  workloadConfig(flags.preset, flags.precision);
  const sides = [alone, ...shared].map((ranks): Side => {
    const trainings = ranks.own.map((rank) => new TimedTraining(rank, flags, { change }));
    return { name: nameOf(ranks), ranks, trainings, seconds: [], processorSeconds: [] };
  });
  const mine = isFirstProcess() ? sides : sides.slice(1);
  for (let round = -1; round < flags.rounds; round++) {
    for (const side of mine) {
      const before = process.cpuUsage();
      const seconds = await stepOf(side);
      const { user, system } = process.cpuUsage(before);
      // The first step records the commands that the next ones replay.
      if (round < 0) continue;
      side.seconds.push(seconds);
      side.processorSeconds.push((user + system) / 1e6);
    }
  }
  if (isFirstProcess()) for (const side of sides) yield rowOf(side, sides[0]!, flags, count);
  for (const { trainings, ranks } of sides) {
    for (const training of trainings) training.dispose();
    await Promise.all(ranks.own.map(({ device }) => device.dispose()));
    await ranks.job?.leave();
  }
}

/** One rank beside many, without ZeRO-1 and with it. */
async function manyInProcess(
  ranks: number,
  own: { readonly threads?: number },
): Promise<readonly OpenRanks[]> {
  return [
    await openRanks({ ...own, ranks: 1 }),
    await openRanks({ ...own, ranks }),
    await openRanks({ ...own, ranks, zero1: true }),
  ];
}

/** Every side computes the same numbers: a shard for each rank, of a micro-batch each. */
function cut(config: TrainConfig, ranks: number): TrainConfig {
  const batchRows = Math.max(config.batchRows, ranks);
  const microBatchRows = Math.floor(batchRows / ranks);
  return { ...config, gradientShards: ranks, microBatchRows, batchRows: ranks * microBatchRows };
}

async function stepOf({ ranks, trainings }: Side): Promise<number> {
  // Processes begin together: whoever waits for another in its step would measure that one's other side.
  await Promise.all(ranks.own.map(({ team }) => (team === null ? undefined : barrier(team.communicator))));
  const begun = performance.now();
  await Promise.all(trainings.map((training) => training.step()));
  return (performance.now() - begun) / 1000;
}

function nameOf({ launch, job }: OpenRanks): string {
  if (launch === null) return "one process";
  const { ranks, layout } = launch;
  const place = job === null ? "in one process" : `by ${job.library}`;
  return `${ranks} rank${ranks === 1 ? "" : "s"} ${place}${layout.zero1 ? ", ZeRO-1" : ""}`;
}

function rowOf(side: Side, base: Side, flags: RankFlags, count: number): BenchRow {
  const { name, ranks, trainings, seconds } = side;
  const { best, median } = timing(seconds);
  const share = timing(base.seconds.map((time, round) => time / seconds[round]!));
  return {
    bench: "ranks",
    name,
    preset: flags.preset,
    precision: flags.precision,
    gradientShards: count,
    threads: ranks.own[0]!.threads,
    rounds: flags.rounds,
    seconds: best,
    medianSeconds: median,
    processorSeconds: timing(side.processorSeconds).best,
    tokensPerSecond: trainings[0]!.tokensPerStep / best,
    tokensShare: timing(base.seconds).best / best,
    medianTokensShare: share.median,
  };
}
