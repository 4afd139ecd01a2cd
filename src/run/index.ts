export { freeBytes, requireFreeBytes, syncFolder, writeFileAtomic } from "./files/atomicFile.ts";
export { errorCode, explained, explainFileError, isReaderGone } from "./files/fileErrors.ts";
export {
  checkpointName,
  createRun,
  freshRunPath,
  isOwned,
  type LaunchLayout,
  openRun,
  RunFolder,
  type RunManifest,
  type RunPaths,
  readLatest,
  readManifest,
  runPaths,
} from "./folder/folder.ts";
export { type WindowLoad, type WorstLoad, windowLoads, worstLoads } from "./loadBalance.ts";
export { BEFORE_FIRST_STEP, EventLog, type OpenLog, openEventLog } from "./log/eventLog.ts";
export { readEvents } from "./log/eventReader.ts";
export { collectHistory, RunHistory } from "./log/history.ts";
export { coordinate, escapeMarkup, htmlTable } from "./report/markup.ts";
export { type WrittenReport, writeReport } from "./report/report.ts";
export { reportStyle } from "./report/reportStyle.ts";
export { ticks } from "./report/series.ts";
export { type ConfigDifference, configDifferences, flattenConfig } from "./runDifferences.ts";
export { type IndexedRun, openRunStore, type RunComparison, type RunStore } from "./store.ts";
export { type RunStatus, type RunSummary, summarize } from "./summary.ts";
export { openTensorBoard, type TensorBoardFile } from "./tensorboard.ts";
export { openTerminal, type TerminalOptions, type TerminalStream } from "./terminal/terminal.ts";
