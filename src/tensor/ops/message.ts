/**
 * Messages between ranks, as commands of the queue: they are recorded and replayed like any other, and JavaScript
 * never waits.
 *
 * A message is posted, which only begins it, and awaited later under the ticket of its post; what is enqueued in
 * between computes while it travels. Messages of one (sender, receiver, tag) arrive in the order of their posts.
 * A tensor that is posted must keep its memory, and its contents, until the await is enqueued. What is composed of
 * these three lies in parallel/communicator/.
 */
import { CollectiveError, ShapeError } from "../../base/index.ts";
import { defineMessage, type Kernel } from "../kernel.ts";
import { requireDtype } from "../shape.ts";
import type { Device, Tensor } from "../tensor.ts";

const POST_PARAMS = ["ticket", "peer", "tag", "rows", "width", "begin", "end"] as const;

export const postSendKernel: Kernel = defineMessage(
  "send",
  "postSend",
  { x: "in", offsets: "in? i32" },
  POST_PARAMS,
);

export const postReceiveKernel: Kernel = defineMessage(
  "receive",
  "postReceive",
  { y: "out", offsets: "in? i32" },
  POST_PARAMS,
);

export const awaitMessagesKernel: Kernel = defineMessage("await", "awaitMessages", {}, ["ticket"]);

/** To whom or from whom, and under which ticket it is awaited. */
export interface MessageAddress {
  /** Any small number that no message in flight has; free again after its await. */
  readonly ticket: number;
  readonly peer: number;
  /** Tells apart messages between the same two ranks whose order is not fixed; 0 by default. */
  readonly tag?: number;
}

/** Rows offsets[begin] to offsets[end] of a tensor, known only when the queue gets there. */
export interface RowRange {
  /** [n] i32, ascending */
  readonly offsets: Tensor;
  readonly begin: number;
  readonly end: number;
}

/**
 * Begins to send a tensor, or the rows of a range, to another rank.
 *
 * @param x  any shape and dtype; with a range its first dimension is the one that offsets count
 */
export function postSend(x: Tensor, to: MessageAddress, range?: RowRange): void {
  x.device.run(postSendKernel, { x, offsets: range?.offsets ?? null }, postParams("postSend", x, to, range));
}

/**
 * Says where the next message of a rank and tag goes. Its length must be exactly that of `y` or of the range.
 *
 * @param y  any shape and dtype; its contents mean nothing until the await
 */
export function postReceive(y: Tensor, from: MessageAddress, range?: RowRange): void {
  const params = postParams("postReceive", y, from, range);
  y.device.run(postReceiveKernel, { y, offsets: range?.offsets ?? null }, params);
}

/** Lets the queue wait until all that was posted under this ticket has been sent and has arrived. */
export function awaitMessages(device: Device, ticket: number): void {
  requireWhole("awaitMessages", "ticket", ticket);
  device.run(awaitMessagesKernel, {}, { ticket });
}

function postParams(
  op: string,
  tensor: Tensor,
  { ticket, peer, tag = 0 }: MessageAddress,
  range: RowRange | undefined,
): Record<(typeof POST_PARAMS)[number], number> {
  for (const [name, value] of Object.entries({ ticket, peer, tag })) requireWhole(op, name, value);
  const address = { ticket, peer, tag };
  if (range === undefined) return { ...address, rows: 1, width: tensor.size, begin: 0, end: 1 };
  const { offsets, begin, end } = range;
  requireDtype(offsets, ["i32"], `${op}: offsets`);
  if (
    !(Number.isInteger(begin) && Number.isInteger(end) && 0 <= begin && begin <= end && end < offsets.size)
  ) {
    throw new ShapeError(`${op}: offsets ${begin} to ${end} are asked of [${offsets.shape.join(", ")}]`, {
      why: "a range of rows lies between two entries of its offsets, the second not before the first",
      fix: `pass begin and end between 0 and ${offsets.size - 1}`,
      fields: { begin, end, shape: offsets.shape },
    });
  }
  const rows = tensor.dim(0);
  const width = tensor.shape.slice(1).reduce((product, dim) => product * dim, 1);
  return { ...address, rows, width, begin, end };
}

/** Tickets, ranks and tags travel as 32-bit numbers. */
function requireWhole(op: string, name: string, value: number): void {
  if (Number.isInteger(value) && value >= 0 && value < 2 ** 32) return;
  throw new CollectiveError(`${op}: ${name} is ${value}`, {
    why: "tickets, ranks and tags are whole numbers from 0 to 2^32 - 1",
    fix: "count ranks from 0, and choose small numbers for tickets and tags",
    fields: { op, name, value },
  });
}

/** Not among the kernels that tests and benches walk through: a message needs a peer. */
export const messageKernels: readonly Kernel[] = [postSendKernel, postReceiveKernel, awaitMessagesKernel];
