export { type Conversion, type ConvertOptions, type ConvertProgress, convertCheckpoint } from "./convert.ts";
export { findCheckpoint } from "./find.ts";
export { type WeightFormat, weightFormats } from "./format.ts";
export { type DtypeShare, type InspectedTensor, type Inspection, inspectCheckpoint } from "./inspect.ts";
export { requireWhole, verifyCheckpoint } from "./manifest.ts";
export {
  expertOf,
  heldPart,
  readModel,
  readModelConfig,
  readWeights,
  type WeightsElsewhere,
  type WriteModelOptions,
  writeModel,
} from "./model.ts";
export { type DiskTensor, diskTensors } from "./names.ts";
export { SafetensorsFile, type TensorToWrite, writeSafetensors } from "./safetensors.ts";
export { CheckpointStore, type Damage, type Retention, type StoredCheckpoint } from "./store.ts";
export {
  masterTensors,
  readTrainState,
  type StateTensor,
  type StateToWrite,
  writeTrainState,
} from "./trainState.ts";
