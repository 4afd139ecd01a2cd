export {
  allGather,
  allToAll,
  allToAllRows,
  barrier,
  broadcast,
  type Posted,
  postAllGather,
  postAllGatherInto,
  postAllToAll,
  postAllToAllRows,
  type RaggedRows,
} from "./communicator/collectives.ts";
export type { Communicator, Pending, Receive, Send } from "./communicator/communicator.ts";
export { everyRank } from "./communicator/everyRank.ts";
export { type Ask, firstAlone, followFirst, hearFirst, isFirstsFailure } from "./communicator/firstAlone.ts";
export { type InProcessOptions, inProcess } from "./communicator/inProcess.ts";
export { broadcastJson, gatherJson } from "./communicator/json.ts";
export { type Launcher, launcherOf, type MpiFlavour } from "./communicator/mpi/launcher.ts";
export {
  builtMpiAddons,
  libraryName,
  loadMpiAddon,
  type MpiAddon,
  type MpiFacts,
} from "./communicator/mpi/mpiAddon.ts";
export { joinMpi, type MpiJob, type MpiOptions } from "./communicator/mpi/mpiJob.ts";
export { QueueCommunicator } from "./communicator/queueCommunicator.ts";
export { addByTree, sumInOrder, treeSum, treeSumTo } from "./communicator/sums.ts";
export { type ExpertPlacement, gpuLoads, placeExperts, type ReplicaLayout } from "./eplb.ts";
export { EXCHANGE_TAGS, type ExchangeTags } from "./experts/exchangeTape.ts";
export { ExpertExchange } from "./experts/expertExchange.ts";
export { type TwoHopCounts, TwoHopExchange } from "./experts/twoHopExchange.ts";
export { directionsOf, pipelineRanks, stageHolders, worldRank } from "./holders.ts";
export {
  type CutNumbers,
  checkExperts,
  checkLayout,
  type Layout,
  layoutText,
  type PipelineLayout,
  parseLayout,
  worldSize,
} from "./layout.ts";
export { assignShare, type Held, type Sharing, shareOfRank } from "./owners.ts";
export { answeredAt, neededBy, type PipelineMessage, sentBy } from "./schedule/answers.ts";
export { planDualPipe } from "./schedule/dualPipe.ts";
export { planDualPipeV } from "./schedule/dualPipeV.ts";
export { writeAction } from "./schedule/notation.ts";
export { plan1F1B } from "./schedule/oneForwardOneBackward.ts";
export {
  type Action,
  type Chunk,
  chunksOf,
  type Holder,
  holderOf,
  type PipelinePlan,
  type PipelineSize,
  type Schedule,
  stageOf,
} from "./schedule/plan.ts";
export { planSchedule, schedules } from "./schedule/planSchedule.ts";
export { planZeroBubble } from "./schedule/zeroBubble.ts";
export { actionDurations, type ChunkCosts, type SimulationCosts } from "./simulate/costs.ts";
export { type SimulatedSpan, type Simulation, simulate } from "./simulate/simulate.ts";
export { splitStages } from "./stages.ts";
export { accountTimeline, type RankAccount, type TimelineAccount } from "./trace/account.ts";
export { type RankTrace, type RankTraceEvent, rankTrace } from "./trace/chromeTrace.ts";
export { compareWithSimulation, type StepComparison } from "./trace/compare.ts";
export { type GanttPage, ganttPage } from "./trace/gantt.ts";
export { actionMark } from "./trace/marks.ts";
export { RankTracer, type TracerOptions } from "./trace/rankTracer.ts";
export { simulatedSpans } from "./trace/simulated.ts";
export type { AwaitedMessage, RankSpans, SentMessage, Span, SpanCategory, SpanChunk } from "./trace/spans.ts";
export { rankTraceName, readRankTrace, writeRankTrace } from "./trace/traceFile.ts";
export { withTravel } from "./trace/travel.ts";
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
