/**
 * What a run needs to go on with the same bits, beside the model itself: optimizer.safetensors and state.json.
 *
 * The f32 masters are here where the model's file has rounded copies; moments and averages lie beside them.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError, type JsonObject } from "../base/index.ts";
import type { ParameterFactory } from "../model/index.ts";
import { errorCode, writeFileAtomic } from "../run/index.ts";
import { BYTES_PER_ELEMENT, type Shape, type Tensor } from "../tensor/index.ts";
import { formatOf } from "./format.ts";
import { type DiskDtype, SafetensorsFile, type TensorToWrite, writeSafetensors } from "./safetensors.ts";

/** A tensor of the run's state by the name under which it is stored: "moment.m.<path>". */
export interface StateTensor {
  readonly name: string;
  readonly tensor: Tensor;
  /** Where the tensor is a part of what is stored: the whole's shape, and the element at which the part begins. */
  readonly within?: { readonly shape: Shape; readonly start: number };
}

/** The same to be written: its bytes may lie elsewhere, and are asked for in the order of the file. */
export interface StateToWrite {
  readonly name: string;
  readonly tensor: Pick<Tensor, "shape" | "dtype" | "readBytes">;
}

const OPTIMIZER_FILE = "optimizer.safetensors";
const STATE_FILE = "state.json";

/** The masters that a model's file does not hold exactly. */
export function masterTensors(
  factory: ParameterFactory,
): readonly (StateTensor & { readonly path: string })[] {
  if (formatOf(factory.options.precision) === "f32") return [];
  return factory.parameters
    .filter(({ shape }) => shape.length > 1)
    .map(({ path, master }) => ({ name: `master.${path}`, path, tensor: master }));
}

export async function writeTrainState(
  folder: string,
  tensors: readonly StateToWrite[],
  state: JsonObject,
): Promise<void> {
  const files = tensors.map(
    ({ name, tensor }): TensorToWrite => ({
      name,
      dtype: diskDtype(tensor),
      shape: tensor.shape,
      bytes: () => tensor.readBytes(),
    }),
  );
  await writeSafetensors(join(folder, OPTIMIZER_FILE), files, { format: "minke" });
  await writeFileAtomic(join(folder, STATE_FILE), `${JSON.stringify(state, null, 2)}\n`);
}

/**
 * Fills the tensors from a checkpoint and returns its state.
 *
 * @param names  of all that the checkpoint must hold: more than `tensors` where other ranks have the rest
 * @throws {CheckpointError} if the checkpoint is a model only, or a tensor is missing, left over, or of another kind
 */
export async function readTrainState(
  folder: string,
  tensors: readonly StateTensor[],
  names: Iterable<string> = tensors.map(({ name }) => name),
): Promise<JsonObject> {
  const state = await readState(folder);
  const file = await SafetensorsFile.open(join(folder, OPTIMIZER_FILE)).catch((error: unknown) => {
    throw errorCode(error) === "ENOENT" ? withoutState(folder, OPTIMIZER_FILE, error) : error;
  });
  try {
    const wanted = new Set(names);
    const leftOver = [...file.tensors.keys()].filter((name) => !wanted.has(name));
    if (leftOver.length > 0)
      throw doesNotFit(file.path, leftOver[0]!, "the run's settings have no such tensor");
    for (const { name, tensor, within } of tensors) {
      const entry = file.tensors.get(name);
      const fits =
        entry !== undefined &&
        entry.dtype === diskDtype(tensor) &&
        JSON.stringify(entry.shape) === JSON.stringify(within?.shape ?? tensor.shape);
      if (!fits) throw doesNotFit(file.path, name, "it is missing there, or of another shape or dtype");
      const width = BYTES_PER_ELEMENT[tensor.dtype];
      const start = (within?.start ?? 0) * width;
      tensor.writeBytes(await file.read(entry, start, tensor.size * width));
    }
  } finally {
    await file.close();
  }
  return state;
}

async function readState(folder: string): Promise<JsonObject> {
  const path = join(folder, STATE_FILE);
  try {
    return JSON.parse(await readFile(path, "utf8")) as JsonObject;
  } catch (error) {
    if (error instanceof SyntaxError)
      throw new CheckpointError(`${path} is not JSON`, {
        why: error.message,
        fix: "use an earlier checkpoint of the run",
        fields: { path },
        cause: error,
      });
    throw errorCode(error) === "ENOENT" ? withoutState(folder, STATE_FILE, error) : error;
  }
}

function withoutState(folder: string, missing: string, cause: unknown): CheckpointError {
  return new CheckpointError(`${folder} is a model without the state of a run: it has no ${missing}`, {
    why: "going on with the same bits needs the optimizer's moments and the position in the data",
    fix: "resume from a run folder; a model alone can generate, not resume",
    fields: { folder, missing },
    cause,
  });
}

function doesNotFit(path: string, name: string, why: string): CheckpointError {
  return new CheckpointError(`${path}: ${name} does not fit this run`, {
    why,
    fix: "resume with the settings with which the run was started; they are in its run.json",
    fields: { path, key: name },
  });
}

function diskDtype(tensor: Pick<Tensor, "dtype">): DiskDtype {
  return tensor.dtype === "bf16" ? "BF16" : "F32";
}
