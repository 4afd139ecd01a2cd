export { type LoadedModel, type LoadOptions, loadModel, type WriteOptions } from "./loadModel.ts";
export { type DeviceOptions, type OpenDevice, openDevice } from "./openDevice.ts";
export { isFirstProcess, isLaunched, type OpenRank, type OpenRanks, openRanks } from "./openRanks.ts";
export { loadTokenizer } from "./prepareRun.ts";
export { newConfig } from "./runConfig.ts";
export { type TrainRun, trainModel } from "./trainModel.ts";
export type { TrainedContext, TrainOptions } from "./trainOptions.ts";
export { version } from "./version.ts";
