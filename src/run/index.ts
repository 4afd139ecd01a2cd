export { freeBytes, requireFreeBytes, syncFolder, writeFileAtomic } from "./atomicFile.ts";
export { EventLog, type OpenLog, openEventLog } from "./eventLog.ts";
export { readEvents } from "./eventReader.ts";
export { errorCode, explained, explainFileError } from "./fileErrors.ts";
export {
  checkpointName,
  createRun,
  freshRunPath,
  isOwned,
  openRun,
  type RunFolder,
  type RunManifest,
  type RunPaths,
  readLatest,
  readManifest,
  runPaths,
} from "./folder.ts";
