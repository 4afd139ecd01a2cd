export { ALIGNMENT, Arena } from "./arena.ts";
export type { Backend, BackendName, Endpoint, HubLink, Operand } from "./backend/backend.ts";
export { checkedTimeout } from "./backend/link.ts";
export { type Isa, loadAddon, type NativeInfo } from "./backend/native/addon.ts";
export { NativeHub } from "./backend/native/hub.ts";
export { NativeBackend, type NativeOptions } from "./backend/native/native.ts";
export { TracedBackend, type TracedCommand, type TracedMessage } from "./backend/native/traced.ts";
export { PlanBackend } from "./backend/plan/plan.ts";
export { ReferenceHub } from "./backend/reference/hub.ts";
export { ReferenceBackend } from "./backend/reference/reference.ts";
export { type BlockCodes, dequantizeBlocks, quantizeBlocks } from "./blocks.ts";
export { QueueDevice, Scope } from "./device.ts";
export { BYTES_PER_ELEMENT, bf16FromNumber, bf16ToNumber, type Dtype } from "./dtype.ts";
export {
  type CodeDtype,
  e4m3FromNumber,
  e4m3ToNumber,
  e5m6FromNumber,
  e5m6ToNumber,
  powerOfTwoCeil,
  type ScaleRule,
  TILE,
  tileScale,
  tilesOf,
} from "./fp8.ts";
export { type Fp8Format, type Fp8Recipe, reportRecipe, type TileFormat } from "./fp8Format.ts";
export { HostScalar, type Param } from "./hostScalar.ts";
export type { Floats, Kernel, Values } from "./kernel.ts";
export {
  type AbsorbedDims,
  absorbedAttention,
  type CachedTokens,
  cacheAppend,
} from "./ops/absorbedAttention.ts";
export { addRmsNorm, rmsNorm } from "./ops/addRmsNorm.ts";
export { type AttentionDims, attention } from "./ops/attention.ts";
export { add, addCounts, axpy, cast, copyInto, copyIntoRow, fill, scale } from "./ops/elementwise.ts";
export { embedding } from "./ops/embedding.ts";
export { absMax } from "./ops/fp8/absMax.ts";
export { fp8GradWeightKernel, fp8GroupedGradWeightKernel } from "./ops/fp8/fp8GradWeight.ts";
export { fp8GroupedMatmulKernel, fp8MatmulKernel } from "./ops/fp8/fp8Matmul.ts";
export { keptAs } from "./ops/fp8/keptAs.ts";
export { type ColumnOptions, columnScaleRows, quantizeColumns } from "./ops/fp8/quantizeColumns.ts";
export {
  dequantizeTiles,
  type Quantized,
  type QuantizeOptions,
  quantizeTiles,
} from "./ops/fp8/quantizeTiles.ts";
export { quantizeWeight, type WeightCodes } from "./ops/fp8/quantizeWeight.ts";
export { Tiles, tilesFrom } from "./ops/fp8/tiles.ts";
export { latentKv } from "./ops/latentKv.ts";
export { linear } from "./ops/linear.ts";
export { linearCrossEntropy, type TokenLosses } from "./ops/linearCrossEntropy.ts";
export { awaitMessages, type MessageAddress, postReceive, postSend, type RowRange } from "./ops/message.ts";
export { type CopySums, combine, combineCopies } from "./ops/moe/combine.ts";
export {
  type CopyOptions,
  type CopyPlan,
  emptyHeader,
  gatherRows,
  planCopies,
  type UnitHeader,
} from "./ops/moe/copies.ts";
export { type DispatchPlan, expertLoad, planDispatch, planTensors } from "./ops/moe/dispatch.ts";
export { type ExpertAnswers, type ExpertRows, expertAnswers, expertLinear } from "./ops/moe/expertRows.ts";
export { groupedLinear } from "./ops/moe/groupedLinear.ts";
export { mixture, spreadToRows } from "./ops/moe/mixture.ts";
export { type Route, type RouteOptions, route } from "./ops/moe/route.ts";
export { moveRouterBias } from "./ops/moe/routerBias.ts";
export { type SequenceBalanceOptions, sequenceBalanceLoss } from "./ops/moe/sequenceBalance.ts";
export { mtpInput } from "./ops/mtpInput.ts";
export { type AdamwSettings, adamwStep, type Moments } from "./ops/optimizer/adamw.ts";
export { ema } from "./ops/optimizer/ema.ts";
export { globalGradNorm, normOfPartials, partialSquares, squarePartials } from "./ops/optimizer/gradNorm.ts";
export { type MuonSettings, muonStep } from "./ops/optimizer/muon.ts";
export { pause } from "./ops/pause.ts";
export { type Activation, sourceOf, tensorsOf } from "./ops/projection/projection.ts";
export { inputOf } from "./ops/projection/projectionOf.ts";
export { blockWords, philox, randomNormal } from "./ops/random.ts";
export { countPositive, reduceSum } from "./ops/reduce.ts";
export { type RopeLayout, type RopeTable, rope } from "./ops/rope.ts";
export { type SampleSettings, sampleToken } from "./ops/sample.ts";
export { swiglu } from "./ops/swiglu.ts";
export { panelElements } from "./panels.ts";
export { Parameter, type ParameterOptions } from "./parameter.ts";
export { recomputed } from "./recomputed.ts";
export { Recording } from "./recording.ts";
export { scoped } from "./scoped.ts";
export { type Shape, sizeOf } from "./shape.ts";
export { Tape, type TapeOptions } from "./tape.ts";
export { type Device, type Recorder, type Remake, type TapeEntry, Tensor } from "./tensor.ts";
export { WeightBundle } from "./weightBundle.ts";
