/**
 * The state of a run as one logical checkpoint, whatever ranks hold its parts.
 *
 * The list of tensors, their names and their order are those of one process. With ZeRO-1 a moment or average lies at
 * its owner alone: the first rank, which writes, asks for it when the file comes to it, and the owner sends it.
 */
import { masterTensors, type StateTensor, type StateToWrite } from "../checkpoint/index.ts";
import type { Communicator } from "../parallel/index.ts";
import { BYTES_PER_ELEMENT, type Dtype, type Shape, sizeOf, type Tensor } from "../tensor/index.ts";
import { hasSecondMoment, type TrainSession } from "../train/index.ts";

export interface StateEntry {
  readonly name: string;
  readonly shape: Shape;
  readonly dtype: Dtype;
  /** The rank that has it; null where all have it. */
  readonly owner: number | null;
  /** Null where another rank has it. */
  readonly tensor: Tensor | null;
}

/** Everything beside the model's own file, in the order in which it is stored. */
export function stateEntries(session: TrainSession): readonly StateEntry[] {
  const { factory, optimizer, dataParallel, config } = session;
  const masters = masterTensors(factory).map(
    ({ name, tensor }): StateEntry => ({
      name,
      shape: tensor.shape,
      dtype: tensor.dtype,
      owner: null,
      tensor,
    }),
  );
  const places = new Map(optimizer.parameters.map(({ path }, place) => [path, place]));
  const entries = factory.parameters.map((parameter, i) => {
    const { path, shape } = parameter;
    const place = places.get(path);
    const owner = dataParallel?.zero1 === true ? dataParallel.owners[i]! : null;
    const moments = place === undefined ? null : optimizer.moments[place]!;
    const average = place === undefined ? null : (optimizer.averages[place] ?? null);
    const dtype = config.optimizer.moments;
    return {
      first: { name: `moment.m.${path}`, shape, dtype, owner, tensor: moments?.m ?? null },
      second: { name: `moment.v.${path}`, shape, dtype, owner, tensor: moments?.v ?? null },
      hasSecond: hasSecondMoment(parameter, config.optimizer),
      average: { name: `average.${path}`, shape, dtype: "f32" as const, owner, tensor: average },
    };
  });
  const moments = entries.flatMap(({ first, second, hasSecond }) => (hasSecond ? [first, second] : [first]));
  const averages = config.optimizer.emaDecay === null ? [] : entries.map(({ average }) => average);
  return [...masters, ...moments, ...averages];
}

export function stateBytes(entries: readonly StateEntry[]): number {
  return entries.reduce((sum, { shape, dtype }) => sum + sizeOf(shape) * BYTES_PER_ELEMENT[dtype], 0);
}

/** What this rank fills from a checkpoint. */
export function heldHere(entries: readonly StateEntry[]): readonly StateTensor[] {
  return entries.flatMap(({ name, tensor }) => (tensor === null ? [] : [{ name, tensor }]));
}

/** For the rank that writes: what others have arrives when it is read. */
export function gathered(
  entries: readonly StateEntry[],
  communicator: Communicator | null,
): readonly StateToWrite[] {
  return entries.map(({ name, shape, dtype, owner, tensor }) => {
    if (tensor !== null) return { name, tensor };
    return { name, tensor: { shape, dtype, readBytes: () => ask(communicator!, owner!, shape, dtype) } };
  });
}

async function ask(
  communicator: Communicator,
  owner: number,
  shape: Shape,
  dtype: Dtype,
): Promise<Uint8Array> {
  using request = communicator.device.temporary([1], "i32");
  using y = communicator.device.temporary(shape, dtype);
  request.write([1]);
  communicator.exchange([{ to: owner, x: request }], [{ from: owner, y }]).wait();
  return y.readBytes();
}

/** For the others: enqueues the answers to all that the first rank will ask for, in the order of the file. */
export function answer(entries: readonly StateEntry[], communicator: Communicator): void {
  const { rank, device } = communicator;
  using request = device.temporary([1], "i32");
  for (const { owner, tensor } of entries) {
    if (owner !== rank || tensor === null) continue;
    // Only when it is asked for: the whole state of all ranks at once might not fit.
    communicator.exchange([], [{ from: 0, y: request }]).wait();
    communicator.exchange([{ to: 0, x: tensor }], []).wait();
  }
}
