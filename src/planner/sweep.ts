/** Every layout of a model on a cluster that the rules allow, planned and ranked; and why the others are not there. */
import type { BaseError } from "../base/index.ts";
import { numDevices } from "./cluster.ts";
import { divisors, layoutProblem, schedules, type TrainingLayout } from "./layout.ts";
import { spreads } from "./routing.ts";
import type { TrainingRun } from "./throughput.ts";
import { planTraining, type TrainingPlan } from "./training.ts";

export interface SweepRow {
  readonly layout: TrainingLayout;
  readonly microBatches: number;
  readonly stepSeconds: number;
  readonly tokensPerDay: number;
  readonly causalMfu: number;
  /** Mean over ranks, as a share of the pipeline's time. */
  readonly bubbleShare: number;
  /** Of the fullest rank. */
  readonly memoryBytes: number;
  readonly fits: boolean;
  /** What to know before taking it. */
  readonly warnings: readonly string[];
}

export interface Refusal {
  /** Which rule. */
  readonly kind: string;
  readonly count: number;
  /** The first of them. */
  readonly problem: BaseError;
}

export interface Sweep {
  /** Those that fit, by time of a step; then those that do not, by memory. */
  readonly rows: readonly SweepRow[];
  readonly refused: readonly Refusal[];
}

/** Which settings a sweep tries; those that are given are kept fixed. */
export type SweepSpace = Partial<{ readonly [K in keyof TrainingLayout]: readonly TrainingLayout[K][] }>;

/** Twice the fewest that DualPipe needs, and as many again. */
const SIMULATED_PER_RANK = 8;

/**
 * Costs are the uncalibrated ones: chunk times that were measured for one layout say nothing about another's experts
 * per device.
 */
export function sweepLayouts(run: TrainingRun, space: SweepSpace = {}): Sweep {
  const { config, size } = run;
  const cluster = { ...run.cluster, chunkTimes: null };
  const spreadOf = spreads(config, cluster);
  const rows: SweepRow[] = [];
  const refused = new Map<string, { count: number; problem: BaseError }>();
  for (const layout of candidates(numDevices(cluster), config.numHiddenLayers, space)) {
    const problem = layoutProblem(config, cluster, layout, size);
    if (problem === null) {
      rows.push(
        rowOf(
          planTraining({ ...run, cluster, layout, spreadOf, simulatedPerRank: SIMULATED_PER_RANK }),
          cluster.device.memoryBytes,
        ),
      );
      continue;
    }
    const kind = String(problem.fields["kind"]);
    const seen = refused.get(kind);
    refused.set(kind, { count: (seen?.count ?? 0) + 1, problem: seen?.problem ?? problem });
  }
  rows.sort((a, b) => {
    if (a.fits !== b.fits) return a.fits ? -1 : 1;
    return a.fits ? a.stepSeconds - b.stepSeconds : a.memoryBytes - b.memoryBytes;
  });
  return { rows, refused: [...refused].map(([kind, rest]) => ({ kind, ...rest })) };
}

/**
 * The best layout with what is fixed: the fastest that fits, or where none fits the one that needs least memory.
 *
 * @throws {ConfigError} if the rules allow none: the rule that refuses most of them
 */
export function bestLayout(run: TrainingRun, space: SweepSpace): TrainingLayout {
  const { rows, refused } = sweepLayouts(run, space);
  const [best] = rows;
  if (best !== undefined) return best.layout;
  throw refused.reduce((most, refusal) => (refusal.count > most.count ? refusal : most)).problem;
}

/** pp from 1 to the number of layers, whatever divides the devices; ep in powers of two up to dp. */
function candidates(devices: number, layers: number, space: SweepSpace): TrainingLayout[] {
  const { pp: pps = divisors(devices).filter((pp) => pp <= layers) } = space;
  const found: TrainingLayout[] = [];
  for (const pp of pps) {
    for (const dp of space.dp ?? [Math.floor(devices / pp)]) {
      const powers = Array.from({ length: 12 }, (_, i) => 2 ** i).filter((ep) => ep <= dp);
      for (const ep of space.ep ?? powers) {
        for (const schedule of space.schedule ?? schedules) {
          for (const microBatchRows of space.microBatchRows ?? [1, 2]) {
            found.push({ pp, dp, ep, schedule, microBatchRows });
          }
        }
      }
    }
  }
  return found;
}

function rowOf(plan: TrainingPlan, memoryBytes: number): SweepRow {
  const time = plan.times.find(({ costs }) => costs === "roofline")!;
  const bubble = time.bubbleSeconds.reduce((sum, seconds) => sum + seconds, 0) / time.bubbleSeconds.length;
  const memory = Math.max(...plan.memory.map(({ total }) => total));
  return {
    layout: plan.layout,
    microBatches: plan.microBatches,
    stepSeconds: time.stepSeconds,
    tokensPerDay: time.tokensPerDay,
    causalMfu: time.causalMfu,
    bubbleShare: bubble / time.pipelineSeconds,
    memoryBytes: memory,
    fits: memory <= memoryBytes,
    warnings: plan.warnings,
  };
}
