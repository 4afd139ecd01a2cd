export { freeBytes, requireFreeBytes, syncFolder, writeFileAtomic } from "./atomicFile.ts";
export { BEFORE_FIRST_STEP, EventLog, type OpenLog, openEventLog } from "./eventLog.ts";
export { readEvents } from "./eventReader.ts";
export { errorCode, explained, explainFileError } from "./fileErrors.ts";
export {
  checkpointName,
  createRun,
  freshRunPath,
  isOwned,
  openRun,
  RunFolder,
  type RunManifest,
  type RunPaths,
  readLatest,
  readManifest,
  runPaths,
} from "./folder.ts";
export { collectHistory, RunHistory } from "./history.ts";
export { type WindowLoad, type WorstLoad, windowLoads, worstLoads } from "./loadBalance.ts";
export { type WrittenReport, writeReport } from "./report/report.ts";
export { type ConfigDifference, configDifferences, flattenConfig } from "./runDifferences.ts";
export { type IndexedRun, openRunStore, type RunComparison, type RunStore } from "./store.ts";
export { type RunStatus, type RunSummary, summarize } from "./summary.ts";
export { openTensorBoard, type TensorBoardFile } from "./tensorboard.ts";
export { openTerminal, type TerminalOptions, type TerminalStream } from "./terminal.ts";
