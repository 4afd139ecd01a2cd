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
export { firstAlone, hearFirst } from "./communicator/firstAlone.ts";
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
export { ExpertExchange } from "./experts/expertExchange.ts";
export { type TwoHopCounts, TwoHopExchange } from "./experts/twoHopExchange.ts";
export {
  type CutNumbers,
  checkExperts,
  checkLayout,
  dataRanks,
  type Layout,
  layoutText,
  type Place,
  parseLayout,
  placeOf,
  worldSize,
} from "./layout.ts";
export { assignOwners } from "./owners.ts";
