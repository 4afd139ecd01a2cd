/** Ranks for pipelines with paced chunks: queues of this process, or under mpirun one process each. */
import { BackendError } from "../../base/index.ts";
import {
  everyRank,
  gatherJson,
  inProcess,
  joinMpi,
  launcherOf,
  type RankSpans,
  type TimelineAccount,
} from "../../parallel/index.ts";
import { loadAddon, NativeBackend, QueueDevice, TracedBackend } from "../../tensor/index.ts";
import { type PacedRun, type PacedWorld, pacedWorld, runPaced } from "../../train/index.ts";

const LIMIT = 2 ** 27;

/** Carries out a step on all ranks, some times over. */
export interface PacedRanks {
  /** How many there are; null where as many are made as a plan has. */
  readonly size: number | null;
  /** What carries the messages. */
  readonly carrier: string;
  /** Only one rank has something to say. */
  readonly isFirst: boolean;
  /** The spans of all ranks, for each round. */
  measure(ranks: number, run: PacedRun, rounds: number): Promise<readonly (readonly RankSpans[])[]>;
  close(): Promise<void>;
}

export function openPacedRanks(): PacedRanks {
  const { addon, reason } = loadAddon();
  if (addon === null) {
    throw new BackendError("there is nothing to measure without the native backend", {
      why: reason,
      fix: "install Rust (https://rustup.rs), then npm run build",
    });
  }
  return launcherOf(process.env) === null ? queuesOfThisProcess() : processesOfMpi();
}

function queuesOfThisProcess(): PacedRanks {
  return {
    size: null,
    carrier: "in one process",
    isFirst: true,
    async measure(ranks, run, rounds) {
      const link = run.link === undefined ? {} : { link: run.link };
      const worlds = inProcess(ranks, {
        ...{ backend: "native", limitBytes: LIMIT, threads: 1, isTraced: true },
        ...link,
      });
      try {
        const paced = new Map(worlds.map((world) => [world, pacedWorld(world, run.plan.ranks)]));
        const measured: RankSpans[][] = [];
        for (let i = 0; i < rounds; i++) {
          measured.push(await everyRank(worlds, (world) => runPaced(paced.get(world)!, run)));
        }
        return measured;
      } finally {
        for (const { device } of worlds) await device.dispose();
      }
    },
    close: () => Promise.resolve(),
  };
}

function processesOfMpi(): PacedRanks {
  const job = joinMpi();
  const native = new NativeBackend({ threads: 1, reserveBytes: LIMIT });
  const device = new QueueDevice(new TracedBackend(native), LIMIT);
  const world = job.communicator(device);
  let paced: PacedWorld | null = null;
  return {
    size: world.size,
    carrier: `by ${job.library}`,
    isFirst: world.rank === 0,
    async measure(_, run, rounds) {
      // All plans of a job are of all its ranks; a communicator can be split a few times only.
      paced ??= pacedWorld(world, run.plan.ranks);
      const measured: RankSpans[][] = [];
      for (let i = 0; i < rounds; i++) measured.push(await gatherJson(world, await runPaced(paced, run)));
      return measured;
    },
    async close() {
      await device.dispose();
      await job.leave();
    },
  };
}

/** The round that the machine's other work disturbed least. */
export function shortest<T extends { readonly account: TimelineAccount }>(rounds: readonly T[]): T {
  const length = ({ account }: T): number => account.end - account.start;
  return rounds.reduce((best, one) => (length(one) < length(best) ? one : best));
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
