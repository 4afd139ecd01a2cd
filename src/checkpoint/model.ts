/**
 * A model as Hugging Face lays it out: model.safetensors (or shards and an index), config.json, generation_config.json.
 *
 * Matrices are stored in the dtype in which they are multiplied, the rest in f32: so the file that was trained is
 * exactly the file that runs.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { CheckpointError } from "../base/index.ts";
import {
  eosTokenId,
  type ModelConfig,
  modelConfigFromJson,
  modelConfigToJson,
  type ParameterFactory,
} from "../model/index.ts";
import { errorCode, writeFileAtomic } from "../run/index.ts";
import { cast, type Parameter, sizeOf, type Tensor, type Values } from "../tensor/index.ts";
import { type DiskTensor, diskTensors } from "./names.ts";
import { READABLE, widen } from "./numbers.ts";
import {
  bytesOf,
  damaged,
  SafetensorsFile,
  type TensorEntry,
  type TensorToWrite,
  writeSafetensors,
} from "./safetensors.ts";

/** Largest file; a model beyond it is cut into shards with an index. */
const SHARD_BYTES = 5e9;

export async function writeModel(
  folder: string,
  factory: ParameterFactory,
  shardBytes: number = SHARD_BYTES,
): Promise<void> {
  const { config, options } = factory;
  const isBf16 = options.precision.compute === "bf16";
  const tensors = diskTensors(factory).map((disk) => toWrite(disk, holderOf(factory, disk), isBf16));
  const shards = cutShards(tensors, shardBytes);
  if (shards.length === 1) await writeSafetensors(join(folder, "model.safetensors"), tensors);
  else await writeShards(folder, shards);
  const stored: ModelConfig = {
    ...config,
    torchDtype: isBf16 ? "bfloat16" : "float32",
    quantizationConfig: null,
  };
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
 * Fills a model's parameters and buffers from a folder, and packs them.
 *
 * @throws {CheckpointError} if a tensor is missing, unknown, or of another shape than the config says
 */
export async function readModel(folder: string, factory: ParameterFactory): Promise<void> {
  const files = await openWeights(folder);
  try {
    const entries = new Map<string, { readonly file: SafetensorsFile; readonly entry: TensorEntry }>();
    for (const file of files) {
      for (const entry of file.tensors.values()) {
        const other = entries.get(entry.name)?.file.path;
        if (other !== undefined)
          throw damaged(file.path, `holds ${entry.name}, and so does ${other}`, "a tensor lies in one shard");
        entries.set(entry.name, { file, entry });
      }
    }
    const wanted = diskTensors(factory);
    refuseUnknown(folder, entries.keys(), wanted);
    for (const disk of wanted) {
      const found = entries.get(disk.name);
      if (found === undefined) {
        if (disk.isCopy) continue;
        throw missing(folder, disk);
      }
      checkEntry(folder, disk, found.entry);
      if (disk.isCopy) continue;
      const values = widen(await found.file.read(found.entry), found.entry.dtype);
      partOf(holderOf(factory, disk), disk).write(values);
    }
  } finally {
    for (const file of files) await file.close();
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

function toWrite(disk: DiskTensor, holder: Tensor, isBf16: boolean): TensorToWrite {
  const dtype = isBf16 && disk.kind === "matrix" ? "BF16" : "F32";
  return {
    name: disk.name,
    shape: disk.shape,
    dtype,
    async bytes() {
      const part = partOf(holder, disk);
      if (dtype === "F32") return toF32(await part.read());
      // Rounded on the queue: a million numbers at once would hold the event loop up.
      using rounded = cast(part, "bf16");
      return await rounded.readBytes();
    },
  };
}

/** Masters in f64, as oracles have them, are rounded. */
function toF32(values: Values): Uint8Array {
  const { buffer, byteOffset, byteLength } =
    values instanceof Float32Array ? values : Float32Array.from(values);
  return new Uint8Array(buffer, byteOffset, byteLength);
}

function cutShards(tensors: readonly TensorToWrite[], limit: number): readonly (readonly TensorToWrite[])[] {
  const shards: TensorToWrite[][] = [[]];
  let size = 0;
  for (const tensor of tensors) {
    if (size > 0 && size + bytesOf(tensor) > limit) {
      shards.push([]);
      size = 0;
    }
    shards.at(-1)?.push(tensor);
    size += bytesOf(tensor);
  }
  return shards;
}

async function writeShards(folder: string, shards: readonly (readonly TensorToWrite[])[]): Promise<void> {
  const digits = (n: number): string => String(n).padStart(5, "0");
  const weightMap: Record<string, string> = {};
  let total = 0;
  for (const [i, tensors] of shards.entries()) {
    const name = `model-${digits(i + 1)}-of-${digits(shards.length)}.safetensors`;
    await writeSafetensors(join(folder, name), tensors);
    for (const tensor of tensors) {
      weightMap[tensor.name] = name;
      total += bytesOf(tensor);
    }
  }
  const index = { metadata: { total_size: total }, weight_map: weightMap };
  await writeFileAtomic(join(folder, "model.safetensors.index.json"), `${JSON.stringify(index, null, 2)}\n`);
}

/** The files that the index names, or the single one. Names of shards are never parsed. */
export async function openWeights(folder: string): Promise<readonly SafetensorsFile[]> {
  const names = await shardNames(folder);
  const files: SafetensorsFile[] = [];
  try {
    for (const name of names) files.push(await SafetensorsFile.open(join(folder, name)));
  } catch (error) {
    for (const file of files) await file.close();
    if (errorCode(error) !== "ENOENT") throw error;
    throw new CheckpointError(`${folder} has no ${names[files.length]}`, {
      why:
        names.length === 1
          ? "weights lie in model.safetensors or in shards with an index"
          : "the index names this shard",
      fix: "copy the whole folder again",
      fields: { folder, missing: names[files.length] },
      cause: error,
    });
  }
  return files;
}

async function shardNames(folder: string): Promise<readonly string[]> {
  const path = join(folder, "model.safetensors.index.json");
  try {
    const { weight_map: map } = indexSchema.parse(JSON.parse(await readFile(path, "utf8")));
    return [...new Set(Object.values(map))];
  } catch (error) {
    if (errorCode(error) === "ENOENT") return ["model.safetensors"];
    if (error instanceof SyntaxError || error instanceof z.ZodError)
      throw damaged(path, "is no index of shards", "it maps each tensor's name to a file beside it");
    throw error;
  }
}

/** A shard is a file of the folder itself: a name that leads elsewhere is refused. */
const indexSchema: z.ZodType<{ readonly weight_map: Readonly<Record<string, string>> }> = z.object({
  weight_map: z.record(z.string(), z.string().regex(/^[^/\\]+$/)),
});

function refuseUnknown(folder: string, names: Iterable<string>, wanted: readonly DiskTensor[]): void {
  const known = new Set(wanted.map(({ name }) => name));
  // Old writers stored the rotary frequencies, which follow from the config.
  const unknown = [...names].filter((name) => !known.has(name) && !name.endsWith("rotary_emb.inv_freq"));
  if (unknown.length === 0) return;
  throw new CheckpointError(
    `${folder}: the model has no place for ${unknown.length} tensors, the first is ${unknown[0]}`,
    {
      why: "a weight that is left out in silence makes another model than the one that was trained",
      fix: "check num_hidden_layers, num_nextn_predict_layers and n_routed_experts in config.json",
      fields: { folder, unknown },
    },
  );
}

function missing(folder: string, disk: DiskTensor): CheckpointError {
  return new CheckpointError(`${folder} holds no ${disk.name}`, {
    why: `the model of its config.json has this tensor, of shape [${disk.shape.join(", ")}]`,
    fix: "use the config.json that was written with the weights",
    fields: { folder, key: disk.name },
  });
}

function checkEntry(folder: string, disk: DiskTensor, entry: TensorEntry): void {
  if (!READABLE.includes(entry.dtype)) {
    throw new CheckpointError(`${folder}: ${disk.name} is ${entry.dtype}`, {
      why: `weights are read from ${READABLE.join(", ")}`,
      fix: "convert the checkpoint to BF16 first",
      fields: { folder, key: disk.name, dtype: entry.dtype },
    });
  }
  if (entry.shape.length === disk.shape.length && entry.shape.every((dim, i) => dim === disk.shape[i]))
    return;
  throw new CheckpointError(
    `${disk.name} is [${entry.shape.join(", ")}], the model wants [${disk.shape.join(", ")}]`,
    {
      why: "weights and config.json describe different models",
      fix: "use the config.json that lies beside the weights",
      fields: { folder, key: disk.name, shape: entry.shape, wanted: disk.shape },
    },
  );
}
