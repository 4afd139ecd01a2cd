/**
 * The same model in another form: FP8, BF16 or F32, tensor by tensor, so that its size in memory is never needed.
 *
 * What already has its form is copied byte for byte. FP8 weights that leave FP8 become code times scale; weights that
 * enter it are read as f32 and get one scale per block of 128 x 128 (./quantized.ts).
 */
import { randomUUID } from "node:crypto";
import { copyFile, mkdir, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { DiskError, formatBytes, RunError, renameKeys, toSnakeCase } from "../base/index.ts";
import { type ModelConfig, ParameterFactory, precisions, Transformer } from "../model/index.ts";
import {
  errorCode,
  explained,
  explainFileError,
  freeBytes,
  syncFolder,
  writeFileAtomic,
} from "../run/index.ts";
import { PlanBackend, QueueDevice } from "../tensor/index.ts";
import { readScales, type StoredWeight, scaleName, scaleShape } from "./blockScales.ts";
import { describeFormat, diskDtype, type WeightFormat } from "./format.ts";
import { requireWhole } from "./manifest.ts";
import { readModelConfig } from "./model.ts";
import { type DiskTensor, diskTensors } from "./names.ts";
import { toBf16Bytes, toF32Bytes } from "./numbers.ts";
import { quantizedTensors } from "./quantized.ts";
import { bytesOf, type DiskDtype, type TensorToWrite } from "./safetensors.ts";
import { writeWeights } from "./shards.ts";
import { readBands, readCodes, WeightFiles } from "./weightFiles.ts";

export interface ConvertOptions {
  readonly format: WeightFormat;
  /** FP8 scales of the form 2^n. By default as the source has them; plain where it has none. */
  readonly powerOfTwo?: boolean;
  readonly shardBytes?: number;
  readonly signal?: AbortSignal;
  /** Called before each tensor. */
  readonly onProgress?: (progress: ConvertProgress) => void;
}

export interface ConvertProgress {
  readonly tensors: number;
  readonly ofTensors: number;
  readonly bytes: number;
  readonly ofBytes: number;
}

export interface Conversion {
  readonly from: string;
  readonly to: string;
  readonly format: WeightFormat;
  /** All that were written, scales included. */
  readonly tensors: number;
  /** Weights by what was done to them; `rounded` are those that went from one float to another, widened ones too. */
  readonly copied: number;
  readonly quantized: number;
  readonly dequantized: number;
  readonly rounded: number;
  /** Of all tensors, before and after. */
  readonly fromBytes: number;
  readonly bytes: number;
}

/**
 * Writes a checkpoint's model anew, in a folder of its own. An aborted or failed conversion leaves nothing behind.
 *
 * @param from  a folder with config.json and weights
 * @param to    a folder that does not exist yet
 * @throws      {CheckpointError} if the source is damaged or does not fit its config, {RunError} if `to` exists,
 *              {DiskError} if there is no room, {NonFiniteError} if a weight that goes to FP8 is NaN or infinite
 */
export async function convertCheckpoint(
  from: string,
  to: string,
  options: ConvertOptions,
): Promise<Conversion> {
  await requireAbsent(to);
  await requireWhole(from);
  const config = await readModelConfig(from);
  const files = await WeightFiles.open(from);
  try {
    const rule = ruleOf(config, options);
    const steps = files.match(plannedTensors(config)).map(({ disk, weight }) => stepOf(disk, weight, rule));
    const tensors = steps.flatMap((step) => step.tensors);
    const bytes = tensors.reduce((sum, tensor) => sum + bytesOf(tensor), 0);
    await requireRoom(to, bytes);
    const temporary = `${resolve(to)}.writing-${randomUUID()}`;
    await explained(to, "write the converted model", async () => {
      try {
        await mkdir(temporary, { recursive: true });
        await writeWeights(temporary, watched(tensors, bytes, options), options.shardBytes);
        await copyOtherFiles(from, temporary);
        await writeConfig(from, temporary, rule);
        await rename(temporary, to);
      } catch (error) {
        await rm(temporary, { recursive: true, force: true });
        // Another conversion came first.
        throw ["ENOTEMPTY", "EEXIST"].includes(errorCode(error) ?? "") ? existsAlready(to) : error;
      }
      await syncFolder(dirname(resolve(to)));
    });
    const count = (kind: Step["kind"]): number => steps.filter((step) => step.kind === kind).length;
    return {
      ...{ from, to, format: rule.format, tensors: tensors.length, bytes },
      ...{ copied: count("copied"), quantized: count("quantized") },
      ...{ dequantized: count("dequantized"), rounded: count("rounded") },
      fromBytes: files.bytes,
    };
  } finally {
    await files.close();
  }
}

/** An empty folder is as good as none. */
async function requireAbsent(to: string): Promise<void> {
  const found = await stat(to).catch((error: unknown) => {
    if (errorCode(error) === "ENOENT") return null;
    throw explainFileError(error, to, "write the converted model");
  });
  if (found === null || (found.isDirectory() && (await readdir(to)).length === 0)) return;
  throw existsAlready(to);
}

function existsAlready(to: string): RunError {
  return new RunError(`${to} exists already`, {
    why: "a conversion writes a folder of its own and replaces nothing",
    fix: `choose another folder, or remove ${to} first`,
    fields: { to },
  });
}

async function requireRoom(to: string, bytes: number): Promise<void> {
  const free = await freeBytes(to);
  if (free >= bytes) return;
  throw new DiskError(
    `${to} has ${formatBytes(free)} free, the converted model needs ${formatBytes(bytes)}`,
    {
      why: "the source stays as it is, so both must fit",
      fix: `free ${formatBytes(bytes - free)} there, or choose a folder on another disk`,
      fields: { to, neededBytes: bytes, freeBytes: free },
    },
  );
}

/** Every tensor that a model of this config has: built on paper, no memory is taken. */
function plannedTensors(config: ModelConfig): readonly DiskTensor[] {
  const device = new QueueDevice(new PlanBackend(), Number.MAX_SAFE_INTEGER);
  const factory = new ParameterFactory(device, config, { precision: precisions.f32, isTrained: false });
  new Transformer(config, factory);
  return diskTensors(factory);
}

interface Rule {
  readonly format: WeightFormat;
  readonly powerOfTwo: boolean;
  /** Whether the source's FP8 codes can stay as they are. */
  readonly keepsCodes: boolean;
}

function ruleOf({ quantizationConfig }: ModelConfig, { format, powerOfTwo }: ConvertOptions): Rule {
  const isPowerOfTwo = quantizationConfig?.scaleFmt === "ue8m0";
  const wanted = powerOfTwo ?? isPowerOfTwo;
  return { format, powerOfTwo: wanted, keepsCodes: wanted === isPowerOfTwo };
}

interface Step {
  readonly kind: "copied" | "quantized" | "dequantized" | "rounded";
  readonly tensors: readonly TensorToWrite[];
}

function stepOf(disk: DiskTensor, weight: StoredWeight, rule: Rule): Step {
  const { name, shape } = disk;
  const { entry, scale } = weight;
  const dtype = targetDtype(disk, entry.dtype, rule.format);
  if (dtype === "F8_E4M3" && scale !== null && rule.keepsCodes) {
    const scales: TensorToWrite = {
      ...{ name: scaleName(name), shape: scaleShape(shape), dtype: "F32" },
      bytes: async () => toF32Bytes(await readScales(scale)),
    };
    return { kind: "copied", tensors: [{ name, shape, dtype, bytes: () => readCodes(weight) }, scales] };
  }
  if (dtype === "F8_E4M3")
    return {
      kind: "quantized",
      tensors: quantizedTensors(name, shape, rule.powerOfTwo, () => readBands(weight)),
    };
  if (dtype === entry.dtype)
    return { kind: "copied", tensors: [{ name, shape, dtype, bytes: () => readCodes(weight) }] };
  const kind = scale === null ? "rounded" : "dequantized";
  return { kind, tensors: [{ name, shape, dtype, bytes: () => written(weight, dtype) }] };
}

/** Routers and vectors stay as they are, in f32 or as rounded as they came, unless everything becomes f32. */
function targetDtype({ kind }: DiskTensor, from: DiskDtype, format: WeightFormat): DiskDtype {
  if (kind === "exact" && format !== "f32" && from === "BF16") return from;
  return diskDtype(kind, format);
}

async function* written(weight: StoredWeight, dtype: DiskDtype): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const { values } of readBands(weight))
    yield dtype === "BF16" ? toBf16Bytes(values) : toF32Bytes(values);
}

/** The same tensors, told about before each, and given up where the caller does. */
function watched(
  tensors: readonly TensorToWrite[],
  ofBytes: number,
  { signal, onProgress }: ConvertOptions,
): readonly TensorToWrite[] {
  let bytes = 0;
  return tensors.map((tensor, i) => ({
    ...tensor,
    async *bytes() {
      onProgress?.({ tensors: i, ofTensors: tensors.length, bytes, ofBytes });
      const given = tensor.bytes();
      for await (const piece of Symbol.asyncIterator in given ? given : [given]) {
        signal?.throwIfAborted();
        bytes += piece.length;
        yield piece;
      }
    },
  }));
}

/** Weights in any form, what describes them, and the state of a run: a converted model starts no run where it was. */
const LEFT_BEHIND =
  /^(?:\..*|config\.json|manifest\.json|state\.json|.*\.(?:safetensors|safetensors\.index\.json|bin|pt|pth|gguf|onnx|h5|msgpack))$/;

/** Tokenizer, templates, licence, and whatever else lies beside the weights. */
async function copyOtherFiles(from: string, to: string): Promise<void> {
  for (const name of (await readdir(from)).filter((file) => !LEFT_BEHIND.test(file))) {
    // Followed where it is a link, as downloads of model hubs are.
    if ((await stat(join(from, name))).isFile()) await copyFile(join(from, name), join(to, name));
  }
}

/** The source's config.json, key for key, but for what it says of the form of the weights. */
async function writeConfig(from: string, to: string, { format, powerOfTwo }: Rule): Promise<void> {
  const json = JSON.parse(await readFile(join(from, "config.json"), "utf8")) as Record<string, unknown>;
  const { torchDtype, quantizationConfig } = describeFormat(format, powerOfTwo);
  // Writers disagree about the spelling; a reader may look for either.
  if ("dtype" in json) json["dtype"] = torchDtype;
  if ("torch_dtype" in json || !("dtype" in json)) json["torch_dtype"] = torchDtype;
  if (quantizationConfig === null) delete json["quantization_config"];
  else json["quantization_config"] = renameKeys(quantizationConfig, toSnakeCase);
  await writeFileAtomic(join(to, "config.json"), `${JSON.stringify(json, null, 2)}\n`);
}
