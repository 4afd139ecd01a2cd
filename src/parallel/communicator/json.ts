/** Small host values over the queue's messages: configurations, verdicts, names. Not for what a step does. */
import { broadcast, postAllGatherInto } from "./collectives.ts";
import type { Communicator } from "./communicator.ts";

/**
 * The root's value on every rank.
 *
 * @param value  on the root what JSON can write; elsewhere ignored
 */
export async function broadcastJson<T>(communicator: Communicator, value: T, root: number): Promise<T> {
  const { rank, device } = communicator;
  const mine = rank === root ? encode(value) : null;
  using length = device.temporary([1], "i32");
  if (mine !== null) length.write([mine.length]);
  broadcast(communicator, length, root);
  const words = (await length.read())[0]!;
  using text = device.temporary([words], "i32");
  if (mine !== null) text.write(mine);
  broadcast(communicator, text, root);
  return decode<T>(await text.read());
}

/** Every rank's value on every rank, in the order of the ranks. */
export async function gatherJson<T>(communicator: Communicator, value: T): Promise<T[]> {
  const { device, size } = communicator;
  const mine = encode(value);
  using length = device.temporary([1], "i32");
  length.write([mine.length]);
  using lengths = device.temporary([size, 1], "i32");
  postAllGatherInto(communicator, length, lengths).wait();
  const longest = Math.max(...(await lengths.read()));
  using text = device.temporary([longest], "i32");
  text.write(Object.assign(new Int32Array(longest).fill(SPACES), mine));
  using texts = device.temporary([size, longest], "i32");
  postAllGatherInto(communicator, text, texts).wait();
  const words = await texts.read();
  return Array.from({ length: size }, (_, of) => decode<T>(words.slice(of * longest, (of + 1) * longest)));
}

/** Four spaces: whole words of them end a text without changing what it says. */
const SPACES = 0x20202020;

function encode(value: unknown): Int32Array {
  // JSON has no undefined: null says the same.
  const text = new TextEncoder().encode(JSON.stringify(value ?? null));
  const padded = new Uint8Array(Math.ceil(text.length / 4) * 4).fill(0x20);
  padded.set(text);
  return new Int32Array(padded.buffer);
}

function decode<T>(words: ArrayLike<number>): T {
  const text = new TextDecoder().decode(Int32Array.from(words).buffer);
  // What the peer wrote is what its own `value` was; all ranks run the same program.
  return JSON.parse(text) as T;
}
