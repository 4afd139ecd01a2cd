/**
 * A model as Hugging Face lays it out: model.safetensors (or shards and an index), config.json, generation_config.json.
 *
 * Matrices are stored in the form in which they are multiplied (./format.ts), the rest in f32: so the file that was
 * trained is exactly the file that runs.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError, invariant } from "../base/index.ts";
import {
  eosTokenId,
  type ModelConfig,
  modelConfigFromJson,
  modelConfigToJson,
  type ParameterFactory,
} from "../model/index.ts";
import { errorCode, writeFileAtomic } from "../run/index.ts";
import { cast, type Parameter, type Shape, sizeOf, type Tensor } from "../tensor/index.ts";
import { describeFormat, diskDtype, formatOf, type WeightFormat } from "./format.ts";
import { type DiskTensor, diskTensors } from "./names.ts";
import { toF32Bytes } from "./numbers.ts";
import { quantizedTensors } from "./quantized.ts";
import type { TensorToWrite } from "./safetensors.ts";
import { writeWeights } from "./shards.ts";
import { type Band, bandRows, readBands, WeightFiles } from "./weightFiles.ts";

export interface WriteModelOptions {
  /** By default the form that keeps what the model's precision multiplies. */
  readonly format?: WeightFormat;
  readonly shardBytes?: number;
  /** Where the experts' weights are that the factory does not hold; absent if it holds all. */
  readonly elsewhere?: WeightsElsewhere;
}

/** Weights that others hold, asked for one by one in the order of the file. */
export interface WeightsElsewhere {
  /** The numbers of one tensor, flat, in f32; the caller disposes them. */
  fetch(disk: DiskTensor): Promise<Tensor>;
}

/** Which of the experts a disk tensor belongs to; null for what belongs to none. */
export function expertOf(factory: ParameterFactory, { path, start }: DiskTensor): number | null {
  const parameter = factory.parameters.find((candidate) => candidate.path === path);
  if (parameter === undefined || factory.expertsOf(parameter) === null) return null;
  return Math.floor(start / sizeOf(parameter.shape.slice(1)));
}

/** The numbers of a disk tensor, flat, if they are here. */
export function heldPart(factory: ParameterFactory, disk: DiskTensor): Tensor | null {
  const holder = holderOf(factory, disk);
  const expert = expertOf(factory, disk);
  if (expert === null) return partOf(holder, disk);
  const { first, count } = factory.options.experts ?? { first: 0, count: factory.config.nRoutedExperts };
  if (expert < first || expert >= first + count) return null;
  return partOf(holder, { ...disk, start: disk.start - first * sizeOf(holder.shape.slice(1)) });
}

/** @throws {NonFiniteError} if a weight that goes to FP8 is NaN or infinite */
export async function writeModel(
  folder: string,
  factory: ParameterFactory,
  { format = formatOf(factory.options.precision), shardBytes, elsewhere }: WriteModelOptions = {},
): Promise<void> {
  const { config, options } = factory;
  const powerOfTwo = options.precision.fp8?.attention.weight.powerOfTwo ?? false;
  const tensors = diskTensors(factory).flatMap((disk) => {
    const held = heldPart(factory, disk);
    invariant(held !== null || elsewhere !== undefined, `${disk.name} is somewhere`);
    const take = (): Promise<Taken> =>
      held === null ? fetched(elsewhere!, disk) : Promise.resolve(lent(held));
    return toWrite(disk, take, format, powerOfTwo);
  });
  await writeWeights(folder, tensors, shardBytes);
  const stored: ModelConfig = { ...config, ...describeFormat(format, powerOfTwo) };
  await writeFileAtomic(
    join(folder, "config.json"),
    `${JSON.stringify(modelConfigToJson(stored), null, 2)}\n`,
  );
  const generation = { bos_token_id: config.bosTokenId, eos_token_id: eosTokenId(config), do_sample: true };
  await writeFileAtomic(join(folder, "generation_config.json"), `${JSON.stringify(generation, null, 2)}\n`);
}

/** @throws {CheckpointError} if there is no config.json, {ConfigError} if it describes no model that can be run */
export async function readModelConfig(folder: string): Promise<ModelConfig> {
  const path = join(folder, "config.json");
  try {
    return modelConfigFromJson(JSON.parse(await readFile(path, "utf8")), path);
  } catch (error) {
    if (error instanceof SyntaxError)
      throw new CheckpointError(`${path} is not JSON`, {
        why: error.message,
        fix: "copy the file again",
        fields: { path },
        cause: error,
      });
    if (errorCode(error) !== "ENOENT" && errorCode(error) !== "ENOTDIR") throw error;
    throw new CheckpointError(`${folder} holds no config.json`, {
      why: "a checkpoint is a folder with config.json beside its weights",
      fix: "name a run folder, one of its checkpoints/step-N, or a folder in Hugging Face layout",
      fields: { folder },
      cause: error,
    });
  }
}

/**
 * Fills a model's parameters and buffers from a folder, and packs them. FP8 weights become the numbers they stand for.
 *
 * @throws {CheckpointError} as `readWeights`
 */
export async function readModel(folder: string, factory: ParameterFactory): Promise<void> {
  await readWeights(folder, factory, (disk) => heldPart(factory, disk));
  for (const parameter of factory.parameters) parameter.repack();
}

/**
 * Reads a model's tensors to where they are wanted. Nothing is packed, and what is not wanted is not read.
 *
 * @param factory  of the whole model: names and shapes are all that is asked of it
 * @param place    the elements that a tensor of the file fills, flat; null for one that is not wanted
 * @throws {CheckpointError} if a tensor is missing, unknown, or of another shape than the config says, or FP8 weights
 *                           have no sound scales
 */
export async function readWeights(
  folder: string,
  factory: ParameterFactory,
  place: (disk: DiskTensor) => Tensor | null,
): Promise<void> {
  const files = await WeightFiles.open(folder);
  try {
    for (const { disk, weight } of files.match(diskTensors(factory))) {
      if (disk.isCopy) continue;
      const part = place(disk);
      if (part === null) continue;
      for await (const { start, values } of readBands(weight))
        part.rows(start, start + values.length).write(values);
    }
  } finally {
    await files.close();
  }
}

/** The tensor that holds a disk tensor: a parameter's master, or a buffer. */
function holderOf(factory: ParameterFactory, { path }: DiskTensor): Tensor {
  const parameter = factory.parameters.find((candidate: Parameter) => candidate.path === path);
  const holder = parameter?.master ?? factory.buffers.find((buffer) => buffer.path === path)?.value;
  if (holder === undefined) throw new RangeError(`nothing is called ${path}`);
  return holder;
}

function partOf(holder: Tensor, { start, shape }: DiskTensor): Tensor {
  return holder.reshape(-1).rows(start, start + sizeOf(shape));
}

/** Numbers to be written: the factory's own, or a copy that has come from elsewhere. */
interface Taken {
  readonly part: Tensor;
  [Symbol.dispose](): void;
}

function lent(part: Tensor): Taken {
  return { part, [Symbol.dispose]: () => undefined };
}

async function fetched(elsewhere: WeightsElsewhere, disk: DiskTensor): Promise<Taken> {
  const part = await elsewhere.fetch(disk);
  return { part, [Symbol.dispose]: () => part.dispose() };
}

function toWrite(
  disk: DiskTensor,
  take: () => Promise<Taken>,
  format: WeightFormat,
  powerOfTwo: boolean,
): readonly TensorToWrite[] {
  const { name, shape, kind } = disk;
  const dtype = diskDtype(kind, format);
  if (dtype === "F8_E4M3") return quantizedTensors(name, shape, powerOfTwo, () => bandsOf(take, shape));
  return [{ name, shape, dtype, bytes: () => (dtype === "F32" ? f32Bytes(take) : bf16Bytes(take)) }];
}

async function f32Bytes(take: () => Promise<Taken>): Promise<Uint8Array> {
  using taken = await take();
  return toF32Bytes(await taken.part.read());
}

/** Rounded on the queue: a million numbers at once would hold the event loop up. */
async function bf16Bytes(take: () => Promise<Taken>): Promise<Uint8Array> {
  using taken = await take();
  using rounded = cast(taken.part, "bf16");
  return await rounded.readBytes();
}

async function* bandsOf(take: () => Promise<Taken>, [N, K]: Shape): AsyncGenerator<Band, void, undefined> {
  using taken = await take();
  const { part } = taken;
  for (const { from, to } of bandRows(N!, K!)) {
    const values = await part.rows(from * K!, to * K!).read();
    yield { start: from * K!, values: Float32Array.from(values) };
  }
}
