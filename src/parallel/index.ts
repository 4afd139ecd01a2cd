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
