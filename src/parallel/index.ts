export type { Communicator, Pending, Receive, Send } from "./communicator/communicator.ts";
export { QueueCommunicator } from "./communicator/queueCommunicator.ts";
export {
  type CutNumbers,
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
