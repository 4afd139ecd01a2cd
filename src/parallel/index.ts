export { type ExpertPlacement, gpuLoads, placeExperts, type ReplicaLayout } from "./eplb.ts";
export { planDualPipe } from "./schedule/dualPipe.ts";
export { planDualPipeV } from "./schedule/dualPipeV.ts";
export { writeAction } from "./schedule/notation.ts";
export { plan1F1B } from "./schedule/oneForwardOneBackward.ts";
export {
  type Action,
  type Chunk,
  chunksOf,
  type PipelinePlan,
  type PipelineSize,
  type Place,
  placeOf,
  type Schedule,
  stageOf,
} from "./schedule/plan.ts";
export { planZeroBubble } from "./schedule/zeroBubble.ts";
export type { ChunkCosts, SimulationCosts } from "./simulate/costs.ts";
export { type SimulatedSpan, type Simulation, simulate } from "./simulate/simulate.ts";
export { accountTimeline, type RankAccount, type TimelineAccount } from "./trace/account.ts";
export { type RankTrace, type RankTraceEvent, rankTrace } from "./trace/chromeTrace.ts";
export { type GanttPage, ganttPage } from "./trace/gantt.ts";
export { simulatedSpans } from "./trace/simulated.ts";
export type { RankSpans, Span, SpanCategory, SpanChunk } from "./trace/spans.ts";
export {
  chosenBy,
  type DispatchTraffic,
  dispatchTraffic,
  type ExpertChoices,
  type ExpertLayout,
  firstHop,
  type Sends,
  secondHop,
} from "./twoHop.ts";
