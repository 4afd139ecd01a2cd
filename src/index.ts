export { BaseError, type RunEvent } from "./base/index.ts";
export { type LoadedModel, type LoadOptions, loadModel, type WriteOptions } from "./loadModel.ts";
export { type TrainOptions, type TrainRun, trainModel } from "./trainModel.ts";
export { version } from "./version.ts";
