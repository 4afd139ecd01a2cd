export { type Launcher, launcherOf, type MpiFlavour } from "./communicator/mpi/launcher.ts";
export {
  builtMpiAddons,
  libraryName,
  loadMpiAddon,
  type MpiAddon,
  type MpiFacts,
} from "./communicator/mpi/mpiAddon.ts";
export { joinMpi, type MpiJob, type MpiOptions } from "./communicator/mpi/mpiJob.ts";
