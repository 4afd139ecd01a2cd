/**
 * `minke bench costs`: what parts of the design cost, a step with the part beside a step without it, in turns.
 *
 * A time is the best of its rounds, and the middle of the ratios round by round says how far to trust it. Tokens are
 * random: the routing that they meet is that of an untrained router, less even than a balanced one's.
 */
import type { OpenDevice } from "../../api/index.ts";
import { UsageError } from "../../base/index.ts";
import { trainingFlopsPerToken } from "../../model/index.ts";
import { besideBf16, estimateStep, type TrainConfig } from "../../train/index.ts";
import { denseTwin } from "../ablate/ablations.ts";
import { type BenchFlags, type BenchRow, timing } from "./row.ts";
import { TimedTraining, type Variant, workloadConfig } from "./workload.ts";

const ARMS = {
  whole: {},
  "no MTP": { change: withoutMtp },
  recomputing: { change: (config) => ({ ...config, recompute: "selective" }) },
  "even load": { isEven: true },
  FP8: { change: inFp8 },
  dense: { change: dense },
} satisfies Readonly<Record<string, Variant>>;

type ArmName = keyof typeof ARMS;

function withoutMtp(config: TrainConfig): TrainConfig {
  return { ...config, model: { ...config.model, numNextnPredictLayers: 0 } };
}

function inFp8(config: TrainConfig): TrainConfig {
  return { ...config, precision: "fp8", optimizer: { ...config.optimizer, moments: "bf16" } };
}

function dense(config: TrainConfig): TrainConfig {
  return { ...config, model: { ...config.model, ...denseTwin(config.model, config.rowLength) } };
}

export async function* benchCosts(opened: OpenDevice, flags: BenchFlags): AsyncGenerator<BenchRow> {
  requireParts(flags);
  const trainings = new Map<ArmName, TimedTraining>();
  for (const [name, variant] of Object.entries(ARMS) as [ArmName, Variant][]) {
    const training = new TimedTraining(opened, flags, variant);
    trainings.set(name, training);
    // The first step records the commands that the next ones replay.
    await training.step();
  }
  const seconds = new Map<ArmName, number[]>([...trainings.keys()].map((name) => [name, []]));
  let busiest = 0;
  for (let round = 0; round < flags.rounds; round++) {
    for (const [name, training] of trainings) {
      const step = await training.step();
      seconds.get(name)!.push(step.seconds);
      if (name === "whole") busiest = Math.max(busiest, step.busiest ?? 0);
    }
  }
  /** Time of one arm over another's, of the best and in the middle. */
  const ratio = (name: ArmName, base: ArmName): { readonly best: number; readonly median: number } => {
    const [these, those] = [seconds.get(name)!, seconds.get(base)!];
    return {
      best: timing(these).best / timing(those).best,
      median: timing(these.map((time, round) => time / those[round]!)).median,
    };
  };
  const row = (name: string, figures: Readonly<Record<string, number>>): BenchRow => ({
    bench: "costs",
    name,
    preset: flags.preset,
    threads: opened.threads,
    precision: flags.precision,
    rounds: flags.rounds,
    ...figures,
  });
  const over = ({ best, median }: { best: number; median: number }): Readonly<Record<string, number>> => ({
    timeShare: best - 1,
    medianTimeShare: median - 1,
  });
  const { model, rowLength } = trainings.get("whole")!.config;
  const flops = trainingFlopsPerToken(model, rowLength);

  yield row("MTP, over the step without it", {
    ...over(ratio("whole", "no MTP")),
    flopsShare: flops.mtp / (flops.total - flops.mtp),
  });
  const [kept, recomputed] = [
    await estimateStep(trainings.get("whole")!.config),
    await estimateStep(trainings.get("recomputing")!.config),
  ];
  yield row("recomputation, over the step without it", {
    ...over(ratio("recomputing", "whole")),
    activationBytes: kept.parts.activations,
    recomputedBytes: recomputed.parts.activations,
    savedShare: 1 - recomputed.parts.activations / kept.parts.activations,
  });
  yield row("routing, over an even load", {
    ...over(ratio("whole", "even load")),
    busiestOverEven: busiest,
  });
  const inFp8 = ratio("FP8", "whole");
  const fp8Config = trainings.get("FP8")!.config;
  const [weights, activations] = await besideBf16(fp8Config, await estimateStep(fp8Config));
  yield row(`FP8, over the step in ${flags.precision}`, {
    ...over(inFp8),
    tokensShare: 1 / inFp8.best,
    medianTokensShare: 1 / inFp8.median,
    weightBytesShare: weights!.bytes / weights!.bf16Bytes,
    cachedBytesShare: activations!.bytes / activations!.bf16Bytes,
  });
  const toDense = ratio("no MTP", "dense");
  yield row("experts, over a dense model of equal FLOPs", {
    ...over(toDense),
    tokensShare: 1 / toDense.best,
  });
  for (const [name, training] of trainings) {
    const { best, median } = timing(seconds.get(name)!);
    yield row(`step: ${name}`, {
      seconds: best,
      medianSeconds: median,
      tokensPerSecond: training.tokensPerStep / best,
    });
    training.dispose();
  }
}

/** @throws {UsageError} if there is nothing to leave out */
function requireParts(flags: BenchFlags): void {
  const { model } = workloadConfig(flags.preset, flags.precision);
  if (model.numNextnPredictLayers > 0 && model.firstKDenseReplace < model.numHiddenLayers) return;
  throw new UsageError(`${flags.preset} has no experts or no MTP`, {
    why: "bench costs compares a step with these parts and without them",
    fix: "use --preset nano, micro or mini",
    fields: { preset: flags.preset },
  });
}
