/**
 * What DeepSeek published about its run of V3 on 2,048 H800: the figures that a plan of the same run is held against.
 *
 * Source: arXiv 2505.09343, table of the multi-plane network; DeepSeek-V3 report, table 1. Never an input of a cost.
 */
import type { ModelConfig } from "../model/index.ts";
import type { Cluster } from "./cluster.ts";
import type { StepSize, TrainingLayout } from "./layout.ts";

export const publishedV3 = {
  stepSeconds: 19.926,
  tokensPerDay: 272.8e9,
  /** FLOP/s of one device, and their share of BF16 peak. */
  causalFlops: 385e12,
  nonCausalFlops: 432e12,
  causalMfu: 0.3894,
  nonCausalMfu: 0.4373,
  tokens: 14.8e12,
  deviceHours: 2.664e6,
  /** Totals of a step. */
  bubbleSeconds: 2.06,
  optimizerSeconds: 0.29,
} as const;

/** The layout of the published run: its micro-batch follows from the published sizes. */
export const publishedLayout: TrainingLayout = {
  pp: 16,
  dp: 128,
  ep: 64,
  schedule: "dualpipe",
  microBatchRows: 1,
};

export const publishedStep: StepSize = { batchRows: 15_360, rowLength: 4096, precision: "fp8" };

/** True for a plan of that very run; `model` is the name that the user gave. */
export function isPublishedRun(
  model: string,
  cluster: Cluster,
  layout: TrainingLayout,
  size: StepSize,
  config: ModelConfig,
): boolean {
  const same = <T extends object>(a: T, b: T): boolean =>
    Object.keys(b).every((key) => a[key as keyof T] === b[key as keyof T]);
  return (
    model === "v3-671b" &&
    config.numHiddenLayers === 61 &&
    cluster.name === "h800x2048" &&
    same(layout, publishedLayout) &&
    same(size, publishedStep)
  );
}
