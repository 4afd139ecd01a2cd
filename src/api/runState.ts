/**
 * The state of a run as one logical checkpoint, whatever ranks hold its parts.
 *
 * The list of tensors, their names and their order are those of one process. With ZeRO-1 a moment or average lies at
 * its owner alone, and where ranks share the experts, each has a part of every tensor that belongs to them: the first
 * rank, which writes, asks for what it has not when the file comes to it, and the owner sends it. The whole state of all
 * ranks at once might not fit, and between two tensors the disk may take its time.
 */
import { invariant } from "../base/index.ts";
import {
  diskTensors,
  expertOf,
  heldPart,
  masterTensors,
  type StateTensor,
  type StateToWrite,
  type WeightsElsewhere,
} from "../checkpoint/index.ts";
import type { Ask, Communicator } from "../parallel/index.ts";
import {
  BYTES_PER_ELEMENT,
  type Dtype,
  type Parameter,
  type Shape,
  sizeOf,
  type Tensor,
} from "../tensor/index.ts";
import { type Asked, hasSecondMoment, type Session } from "../train/index.ts";

/** What one rank has of a tensor: all of it, or some experts. */
export interface StatePart {
  /** The rank that is asked for it; null where nobody asks for it. */
  readonly owner: number | null;
  readonly shape: Shape;
  /** Elements of the whole before it. */
  readonly start: number;
  /** Null where another rank has it. */
  readonly tensor: Tensor | null;
}

export interface StateEntry {
  readonly name: string;
  /** Of the whole. */
  readonly shape: Shape;
  readonly dtype: Dtype;
  readonly parts: readonly StatePart[];
}

/** Everything beside the model's own file, in the order in which it is stored. */
export function stateEntries(session: Session): readonly StateEntry[] {
  const { factory, optimizer, config } = session;
  const { parameters } = factory;
  const masters = masterTensors(factory).map(({ name, path, tensor: { dtype } }): StateEntry => {
    const parameter = parameters.find((candidate) => candidate.path === path)!;
    return entry(session, name, parameter, session.masterOf(path), {
      dtype,
      asked: session.askedFor(path, "master"),
    });
  });
  const places = new Map(optimizer.parameters.map(({ path }, place) => [path, place]));
  const of = ({ path }: Parameter) => {
    const place = places.get(path);
    return {
      moments: place === undefined ? null : optimizer.moments[place]!,
      average: place === undefined ? null : (optimizer.averages[place] ?? null),
    };
  };
  const moments = parameters.flatMap((parameter): StateEntry[] => {
    const { path } = parameter;
    const kind = { dtype: config.optimizer.moments, asked: session.askedFor(path, "moments") };
    const held = of(parameter).moments;
    const first = entry(session, `moment.m.${path}`, parameter, held?.m ?? null, kind);
    if (!hasSecondMoment(parameter, config.optimizer)) return [first];
    return [first, entry(session, `moment.v.${path}`, parameter, held?.v ?? null, kind)];
  });
  const averages = parameters.map((parameter) => {
    const kind = { dtype: "f32" as const, asked: session.askedFor(parameter.path, "moments") };
    return entry(session, `average.${parameter.path}`, parameter, of(parameter).average, kind);
  });
  return [...masters, ...moments, ...(config.optimizer.emaDecay === null ? [] : averages)];
}

/**
 * @param tensor  what this rank has; null for nothing
 * @param asked   who is asked for each part
 */
function entry(
  { factory, experts }: Session,
  name: string,
  parameter: Parameter,
  tensor: Tensor | null,
  { dtype, asked }: { readonly dtype: Dtype; readonly asked: Asked },
): StateEntry {
  const shape = factory.wholeShape(parameter);
  const [rows, ...row] = shape;
  const part = asked.length === 1 ? shape : [rows! / asked.length, ...row];
  const own = asked.length === 1 ? 0 : experts!.first / experts!.count;
  const parts = asked.map((owner, at) => ({
    owner,
    shape: part,
    start: at * sizeOf(part),
    tensor: at === own ? tensor : null,
  }));
  return { name, shape, dtype, parts };
}

export function stateBytes(entries: readonly StateEntry[]): number {
  return entries.reduce((sum, { shape, dtype }) => sum + sizeOf(shape) * BYTES_PER_ELEMENT[dtype], 0);
}

/** What this rank fills from a checkpoint. */
export function heldHere(entries: readonly StateEntry[]): readonly StateTensor[] {
  return entries.flatMap(({ name, shape, parts }) =>
    parts.flatMap(({ tensor, start }) =>
      tensor === null ? [] : [{ name, tensor, within: { shape, start } }],
    ),
  );
}

/** What the first rank has not: a weight of the model's file, or the part of a state's tensor that begins at `start`. */
export interface Wanted {
  readonly owner: number;
  readonly file: "model" | "state";
  readonly name: string;
  readonly start: number;
}

/** How the rank that writes comes by what others have. */
export interface Source {
  readonly communicator: Communicator;
  readonly ask: Ask<Wanted>;
}

/**
 * For the rank that writes: what others have arrives when it is read.
 *
 * @param source  null where this rank has all
 */
export function gathered(entries: readonly StateEntry[], source: Source | null): readonly StateToWrite[] {
  return entries.map(({ name, shape, dtype, parts }) => {
    const read = async ({ tensor, owner, start, shape: own }: StatePart): Promise<Uint8Array> => {
      if (tensor !== null) return tensor.readBytes();
      using y = await receive(source!, { owner: owner!, file: "state", name, start }, own, dtype);
      return await y.readBytes();
    };
    const readBytes = async (): Promise<Uint8Array> => {
      if (parts.length === 1) return read(parts[0]!);
      const bytes = new Uint8Array(sizeOf(shape) * BYTES_PER_ELEMENT[dtype]);
      for (const part of parts) bytes.set(await read(part), part.start * BYTES_PER_ELEMENT[dtype]);
      return bytes;
    };
    return { name, tensor: { shape, dtype, readBytes } };
  });
}

/** For the rank that writes: the weights of experts that others have. */
export function expertsElsewhere(
  { factory }: Pick<Session, "factory">,
  source: Source | null,
): WeightsElsewhere | undefined {
  const { experts } = factory.options;
  if (experts === undefined || source === null) return undefined;
  return {
    fetch: (disk) => {
      // The ranks of the first group answer for all that have the same experts.
      const owner = Math.floor(expertOf(factory, disk)! / experts.count);
      return receive(
        source,
        { owner, file: "model", name: disk.name, start: 0 },
        [sizeOf(disk.shape)],
        "f32",
      );
    },
  };
}

function receive({ communicator, ask }: Source, wanted: Wanted, shape: Shape, dtype: Dtype): Promise<Tensor> {
  return ask(wanted, () => {
    const y = communicator.device.temporary(shape, dtype);
    communicator.exchange([], [{ from: wanted.owner, y }]).wait();
    return y;
  });
}

/** For the others: what this rank does when the first one asks for something. */
export function answering(session: Session, communicator: Communicator): (wanted: Wanted) => void {
  const { factory } = session;
  const weights = new Map(diskTensors(factory).map((disk) => [disk.name, disk]));
  const entries = new Map(stateEntries(session).map((entry) => [entry.name, entry]));
  return ({ owner, file, name, start }) => {
    if (owner !== communicator.rank) return;
    const part = entries.get(name)?.parts.find((candidate) => candidate.start === start);
    const x = file === "model" ? heldPart(factory, weights.get(name)!) : part?.tensor;
    invariant(x !== null && x !== undefined, `rank ${owner} has ${name}`);
    communicator.exchange([{ to: 0, x }], []).wait();
  };
}
