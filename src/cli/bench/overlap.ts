/**
 * `minke bench overlap`: how much of the all-to-all between experts' ranks DualPipe hides when the pieces of a pair are
 * interleaved, and how much when they are not. Chunks are timed waits; messages are real, over a link of given speed.
 */
import { join } from "node:path";
import { keepTrace } from "../../api/index.ts";
import { UsageError } from "../../base/index.ts";
import {
  accountTimeline,
  launcherOf,
  planDualPipe,
  type RankSpans,
  type Span,
  withTravel,
} from "../../parallel/index.ts";
import type { PacedRun, PairForm } from "../../train/index.ts";
import { mean, openPacedRanks, shortest } from "./pacedRanks.ts";
import type { BenchRow } from "./row.ts";

export interface OverlapFlags {
  readonly ranks: number;
  readonly microBatches: number;
  readonly rounds: number;
  readonly trace?: string;
  readonly json?: boolean;
}

/** Ranks that share the experts of a stage. */
const GROUP = 2;
/** A dispatch takes two thirds of what attention or experts take. */
const LINK = { latencySeconds: 0, bytesPerSecond: 1e7 } as const;
const EXPERTS = { layers: 2, bytes: 100_000 } as const;
const COSTS = { chunks: { forward: 0.06, backward: 0.12, weight: 0.06, overlapped: 0.18 } } as const;

export async function* benchOverlap({
  ranks,
  microBatches,
  rounds,
  trace,
}: OverlapFlags): AsyncGenerator<BenchRow> {
  const plan = planDualPipe({ ranks, microBatches });
  if (launcherOf(process.env) !== null) {
    throw new UsageError("minke bench overlap runs in one process", {
      why: "MPI's messages cannot be slowed down to the speed of a given link",
      fix: "run it without mpirun",
    });
  }
  const world = openPacedRanks();
  try {
    for (const pairs of ["unit", "interleaved"] as const satisfies readonly PairForm[]) {
      const run: PacedRun = { plan, costs: COSTS, shape: [16, 16], link: LINK, experts: EXPERTS, pairs };
      const measured = await world.measure(GROUP * ranks, run, rounds);
      const { spans, joined } = shortest(
        measured.map((round) => {
          const travelled = withTravel(round);
          return { spans: round, joined: travelled, account: accountTimeline(travelled) };
        }),
      );
      yield overlapRow(`dualpipe, ${ranks} x ${GROUP} ranks, pairs ${pairs}`, joined);
      if (trace !== undefined) await keepTrace(join(trace, pairs), spans);
    }
  } finally {
    await world.close();
  }
}

function overlapRow(name: string, ranks: readonly RankSpans[]): BenchRow {
  const all = accountTimeline(ranks);
  const paired = accountTimeline(
    ranks.map((rank) => ({ ...rank, spans: rank.spans.filter((span) => isOf(span, 2) || isCompute(span)) })),
  );
  const communication = (account: typeof all): number =>
    mean(account.ranks.map((rank) => rank.communication));
  const exposed = (account: typeof all): number =>
    mean(account.ranks.map((rank) => rank.exposedCommunication));
  return {
    bench: "overlap",
    name,
    milliseconds: (all.end - all.start) * 1000,
    communicationMilliseconds: communication(all) * 1000,
    hiddenShare: 1 - exposed(all) / communication(all),
    inPairsMilliseconds: communication(paired) * 1000,
    hiddenInPairsShare: 1 - exposed(paired) / communication(paired),
  };
}

function isCompute({ category }: Span): boolean {
  return category === "compute";
}

function isOf({ chunks = [] }: Span, count: number): boolean {
  return chunks.length === count;
}
