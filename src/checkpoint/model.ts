/**
 * A model as Hugging Face lays it out: model.safetensors (or shards and an index), config.json, generation_config.json.
 *
 * Matrices are stored in the form in which they are multiplied (./format.ts), the rest in f32: so the file that was
 * trained is exactly the file that runs.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError } from "../base/index.ts";
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
}

/** @throws {NonFiniteError} if a weight that goes to FP8 is NaN or infinite */
export async function writeModel(
  folder: string,
  factory: ParameterFactory,
  { format = formatOf(factory.options.precision), shardBytes }: WriteModelOptions = {},
): Promise<void> {
  const { config, options } = factory;
  const powerOfTwo = options.precision.fp8?.attention.weight.powerOfTwo ?? false;
  const tensors = diskTensors(factory).flatMap((disk) =>
    toWrite(disk, holderOf(factory, disk), format, powerOfTwo),
  );
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
 * @throws {CheckpointError} if a tensor is missing, unknown, or of another shape than the config says, or FP8 weights
 *                           have no sound scales
 */
export async function readModel(folder: string, factory: ParameterFactory): Promise<void> {
  const files = await WeightFiles.open(folder);
  try {
    for (const { disk, weight } of files.match(diskTensors(factory))) {
      if (disk.isCopy) continue;
      const part = partOf(holderOf(factory, disk), disk);
      for await (const { start, values } of readBands(weight))
        part.rows(start, start + values.length).write(values);
    }
  } finally {
    await files.close();
  }
  for (const parameter of factory.parameters) parameter.repack();
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

function toWrite(
  disk: DiskTensor,
  holder: Tensor,
  format: WeightFormat,
  powerOfTwo: boolean,
): readonly TensorToWrite[] {
  const { name, shape, kind } = disk;
  const part = partOf(holder, disk);
  const dtype = diskDtype(kind, format);
  if (dtype === "F8_E4M3") return quantizedTensors(name, shape, powerOfTwo, () => bandsOf(part, shape));
  return [{ name, shape, dtype, bytes: () => (dtype === "F32" ? f32Bytes(part) : bf16Bytes(part)) }];
}

async function f32Bytes(part: Tensor): Promise<Uint8Array> {
  return toF32Bytes(await part.read());
}

/** Rounded on the queue: a million numbers at once would hold the event loop up. */
async function bf16Bytes(part: Tensor): Promise<Uint8Array> {
  using rounded = cast(part, "bf16");
  return await rounded.readBytes();
}

async function* bandsOf(part: Tensor, [N, K]: Shape): AsyncGenerator<Band, void, undefined> {
  for (const { from, to } of bandRows(N!, K!)) {
    const values = await part.rows(from * K!, to * K!).read();
    yield { start: from * K!, values: Float32Array.from(values) };
  }
}
