/** The message commands of one reference queue: which bytes they mean, and which tickets are open. */
import type { Dtype } from "../../dtype.ts";
import type { MessagePart } from "../../kernel.ts";
import type { ReferenceEndpoint } from "./hub.ts";

/** An operand's bytes in the reference backend's memory. */
export interface Located {
  readonly bytes: Uint8Array;
  readonly dtype: Dtype;
  readonly length: number;
}

export class MessageLine {
  readonly endpoint: ReferenceEndpoint;
  /** Posts that were enqueued and whose await has not ended. */
  #open = 0;
  /** Posts that have run, by their tickets. */
  readonly #posted: Map<number, number> = new Map();

  constructor(endpoint: ReferenceEndpoint) {
    this.endpoint = endpoint;
  }

  get isOpen(): boolean {
    return this.#open > 0;
  }

  enqueued(part: MessagePart): void {
    if (part !== "await") this.#open++;
  }

  /** Posts return at once; an await resolves when its messages are there. */
  async run(
    part: MessagePart,
    operands: readonly (Located | null)[],
    params: Readonly<Record<string, number>>,
  ): Promise<void> {
    const { ticket, peer, tag } = params as Readonly<Record<"ticket" | "peer" | "tag", number>>;
    if (part === "await") {
      await this.endpoint.wait(ticket);
      this.#open -= this.#posted.get(ticket) ?? 0;
      this.#posted.delete(ticket);
      return;
    }
    this.#posted.set(ticket, (this.#posted.get(ticket) ?? 0) + 1);
    const bytes = bytesOf(operands[0]!, operands[1] ?? null, params);
    if (part === "send") this.endpoint.postSend(peer, tag, bytes);
    else this.endpoint.postReceive(ticket, peer, tag, bytes);
  }
}

/** Rows begin to end of a tensor, or those between two of its offsets. */
function bytesOf(
  { bytes }: Located,
  offsets: Located | null,
  { rows, begin, end }: Readonly<Record<string, number>>,
): Uint8Array {
  const rowBytes = rows === 0 ? 0 : bytes.length / rows!;
  let [from, to] = [begin!, end!];
  if (offsets !== null) {
    const { buffer, byteOffset } = offsets.bytes;
    const entries = new Int32Array(buffer, byteOffset, offsets.length);
    [from, to] = [entries[from]!, entries[to]!];
  }
  if (from < 0 || to < from || to > rows!) {
    throw new Error(`rows ${from} to ${to} are no range of ${rows} rows`);
  }
  return bytes.subarray(from * rowBytes, to * rowBytes);
}
