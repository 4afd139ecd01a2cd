export { type Assumption, assumptionsOf } from "./assumptions.ts";
export { type BubbleRow, bubbleFormula, bubbleTable } from "./bubbleTable.ts";
export type { RooflineChunks } from "./chunkCosts.ts";
export {
  type ChunkTimes,
  type Cluster,
  type Device,
  type Efficiency,
  namedCluster,
  numDevices,
} from "./cluster.ts";
export { parseCluster } from "./clusterFile.ts";
export { balanceExperts, type ExpertBalance, type ExpertLoads } from "./expertBalance.ts";
export {
  layoutProblem,
  layoutText,
  microBatchesOf,
  type StepSize,
  schedules,
  type TrainingLayout,
} from "./layout.ts";
export type { RankMemory } from "./memory.ts";
export { isPublishedRun, publishedLayout, publishedStep, publishedV3 } from "./published.ts";
export {
  boundBandwidths,
  decodeReadSeconds,
  outputTokenBound,
  planServing,
  publishedBound,
  type ServingPlan,
  type ServingUnit,
  servingUnits,
} from "./serving.ts";
export type { Stage } from "./stages.ts";
export { bestLayout, type Sweep, type SweepRow, type SweepSpace, sweepLayouts } from "./sweep.ts";
export { type Throughput, type TrainingRun, throughput } from "./throughput.ts";
export { planTraining, type StepTime, type TrainingInputs, type TrainingPlan } from "./training.ts";
