export {
  type LoadedModel,
  type LoadOptions,
  loadModel,
  type TrainOptions,
  type TrainRun,
  trainModel,
  version,
  type WriteOptions,
} from "./api/index.ts";
export { BaseError, type RunEvent } from "./base/index.ts";
