/**
 * Two lists of commands as one: cut where they wait for messages, their pieces taken by turns, so that what one waits
 * for travels while the other computes.
 *
 * The result is that of the first list and then the second, bit for bit: inside a list nothing changes places, and a
 * piece of the second comes only after every piece of the first with which it shares memory that one of them writes,
 * a ticket, or the peer and tag of a message: such messages match in the order of their posts.
 */
import type { Operand } from "./backend/backend.ts";
import { BYTES_PER_ELEMENT } from "./dtype.ts";
import { type Param, paramValue } from "./hostScalar.ts";
import type { Kernel } from "./kernel.ts";

/** A command that has been built and waits to be enqueued. */
export interface BuiltCommand {
  readonly kernel: Kernel;
  readonly operands: readonly (Operand | null)[];
  readonly params: readonly Param[];
  readonly label: string;
}

type Piece = readonly BuiltCommand[];

/** Addresses that a piece reads or writes. */
interface Touch {
  readonly piece: number;
  /** Where the storage begins. */
  readonly base: number;
  readonly from: number;
  readonly to: number;
  readonly writes: boolean;
}

/** One storage, and who touches it. */
interface Touched {
  readonly base: number;
  readonly end: number;
  readonly by: readonly Touch[];
}

/** The second list begins, as a backward pass does whose first message is soon on its way. */
export function mergeCommands(
  first: readonly BuiltCommand[],
  second: readonly BuiltCommand[],
): readonly BuiltCommand[] {
  const [ahead, behind] = [cutAtAwaits(first), cutAtAwaits(second)];
  const needed = neededPieces(ahead, behind);
  const merged: BuiltCommand[] = [];
  let taken = 0;
  const takeAhead = (count: number): void => {
    while (taken < count) merged.push(...ahead[taken++]!);
  };
  for (const [i, piece] of behind.entries()) {
    // As many of the one behind as of the other, in proportion.
    takeAhead(Math.max(needed[i]!, Math.round((i * ahead.length) / behind.length)));
    merged.push(...piece);
  }
  takeAhead(ahead.length);
  return merged;
}

/** Messages shorter than this part of the list's longest do not make a piece: there is little to hide. */
const SHORT_SHARE = 1 / 16;

/** A piece begins with all that it waits for. */
function cutAtAwaits(commands: readonly BuiltCommand[]): readonly Piece[] {
  const awaited = awaitedBytes(commands);
  const short = SHORT_SHARE * awaited.reduce((most, bytes) => Math.max(most, bytes), 0);
  const pieces: BuiltCommand[][] = [];
  let isBegun = true;
  for (const [i, command] of commands.entries()) {
    const isAwait = command.kernel.special === "await" && awaited[i]! >= short;
    if (isBegun && (isAwait || pieces.length === 0)) pieces.push([]);
    isBegun = !isAwait;
    pieces.at(-1)!.push(command);
  }
  return pieces;
}

/** For each command, the longest message that it awaits. Of a range of rows only the queue knows: all are taken. */
function awaitedBytes(commands: readonly BuiltCommand[]): readonly number[] {
  const posted = new Map<number, number>();
  return commands.map((command) => {
    const ticket = ticketOf(command);
    if (ticket === null) return 0;
    const before = posted.get(ticket) ?? 0;
    if (command.kernel.special !== "await") {
      const { length, dtype } = command.operands[0]!;
      posted.set(ticket, Math.max(before, length * BYTES_PER_ELEMENT[dtype]));
      return 0;
    }
    posted.delete(ticket);
    return before;
  });
}

/** Null for what is no message. */
function ticketOf({ kernel: { special, params: names }, params }: BuiltCommand): number | null {
  if (special === null || special === "pause") return null;
  return paramValue(params[names.indexOf("ticket")]!);
}

/** For each piece of the second list, how many of the first must come before it. */
function neededPieces(first: readonly Piece[], second: readonly Piece[]): readonly number[] {
  const storages = storagesOf(touchesOf(first));
  const needed = piecesByMessages(first, second);
  for (const touch of touchesOf(second)) {
    for (let i = firstBehind(storages, touch.from); i < storages.length; i++) {
      const { base, by } = storages[i]!;
      if (base >= touch.to) break;
      for (const { piece, from, to, writes } of by) {
        if (from >= touch.to || touch.from >= to || !(writes || touch.writes)) continue;
        needed[touch.piece] = Math.max(needed[touch.piece]!, piece + 1);
      }
    }
  }
  return needed;
}

/** As `neededPieces`, for what messages alone keep in order. */
function piecesByMessages(first: readonly Piece[], second: readonly Piece[]): number[] {
  const lastUse = new Map<string, number>();
  for (const [piece, commands] of first.entries())
    for (const key of commands.flatMap(orderKeys)) lastUse.set(key, piece);
  return second.map((commands) =>
    commands.flatMap(orderKeys).reduce((most, key) => Math.max(most, 1 + (lastUse.get(key) ?? -1)), 0),
  );
}

/** What a message has that no other list may use before it: its ticket, and the queue in which it matches. */
function orderKeys(command: BuiltCommand): readonly string[] {
  const { kernel, params } = command;
  const ticket = ticketOf(command);
  if (ticket === null) return [];
  const own = `ticket ${ticket}`;
  if (kernel.special === "await") return [own];
  const [peer, tag] = ["peer", "tag"].map((name) => paramValue(params[kernel.params.indexOf(name)]!));
  return [own, `${kernel.special} ${peer} ${tag}`];
}

/** By address. They do not overlap: none was given back while the list was built. */
function storagesOf(touches: readonly Touch[]): readonly Touched[] {
  const byBase = new Map<number, Touch[]>();
  for (const touch of touches) {
    const known = byBase.get(touch.base);
    if (known === undefined) byBase.set(touch.base, [touch]);
    else known.push(touch);
  }
  return [...byBase]
    .map(([base, by]) => ({ base, by, end: by.reduce((last, { to }) => Math.max(last, to), base) }))
    .sort((a, b) => a.base - b.base);
}

/** Index of the first storage that ends behind an address. */
function firstBehind(storages: readonly Touched[], address: number): number {
  let [low, high] = [0, storages.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (storages[middle]!.end > address) high = middle;
    else low = middle + 1;
  }
  return low;
}

function touchesOf(pieces: readonly Piece[]): readonly Touch[] {
  const touches = new Map<string, Touch>();
  /** What is posted under a ticket is touched until its await. */
  const posted = new Map<number, Touch[]>();
  const add = (touch: Touch): void => {
    const { piece, from, to, writes } = touch;
    touches.set(`${piece} ${from} ${to} ${writes}`, touch);
  };
  for (const [piece, commands] of pieces.entries()) {
    for (const command of commands) {
      const own = operandTouches(piece, command);
      for (const touch of own) add(touch);
      const ticket = ticketOf(command);
      if (ticket === null) continue;
      if (command.kernel.special !== "await") posted.set(ticket, [...(posted.get(ticket) ?? []), ...own]);
      else {
        for (const touch of posted.get(ticket) ?? []) add({ ...touch, piece });
        posted.delete(ticket);
      }
    }
  }
  return [...touches.values()];
}

function operandTouches(piece: number, { kernel, operands }: BuiltCommand): readonly Touch[] {
  return operands.flatMap((operand, i) => {
    if (operand === null) return [];
    const { base, offset, dtype, length } = operand;
    const from = base + offset;
    const to = from + length * BYTES_PER_ELEMENT[dtype];
    return [{ piece, base, from, to, writes: kernel.operands[i]!.access !== "in" }];
  });
}
