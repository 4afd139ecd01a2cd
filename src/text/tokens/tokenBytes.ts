import { TokenizerError } from "../../base/index.ts";
import { growUint8 } from "../tables/growable.ts";

/** The bytes of every token by id, in one arena: an array for each of 128,000 ids would take 20 times the memory. */
export class TokenBytes {
  private readonly arena: Uint8Array;
  private readonly ends: Int32Array;

  /** @param tokens  in the order of their ids; undefined where an id means nothing */
  constructor(tokens: readonly (Uint8Array | undefined)[]) {
    let arena: Uint8Array = new Uint8Array(4096);
    let end = 0;
    this.ends = new Int32Array(tokens.length);
    for (const [id, bytes] of tokens.entries()) {
      if (bytes !== undefined) {
        arena = growUint8(arena, end + bytes.length);
        arena.set(bytes, end);
        end += bytes.length;
      }
      this.ends[id] = end;
    }
    this.arena = arena.slice(0, end);
  }

  /** Highest id + 1. */
  get size(): number {
    return this.ends.length;
  }

  has(id: number): boolean {
    const end = this.ends[id];
    return end !== undefined && end !== this.startOf(id);
  }

  /**
   * A view of the bytes of a token; not to be written to.
   *
   * @throws {TokenizerError} on an id that means nothing
   */
  of(id: number): Uint8Array {
    if (!this.has(id)) throw unknownId(id, this.size);
    return this.arena.subarray(this.startOf(id), this.ends[id]);
  }

  /** Whether the last byte of a token is CR or LF. */
  endsWithLineBreak(id: number): boolean {
    const last = this.arena[this.ends[id]! - 1];
    return (last === 0x0a || last === 0x0d) && this.has(id);
  }

  private startOf(id: number): number | undefined {
    return id === 0 ? 0 : this.ends[id - 1];
  }
}

function unknownId(id: number, vocabSize: number): TokenizerError {
  return new TokenizerError(`token id ${id} stands for nothing`, {
    why: `the tokenizer has the ids 0 to ${vocabSize - 1}, with gaps if its file leaves some out`,
    fix: "mask the logits of ids that the tokenizer lacks when sampling, or use the model's own tokenizer",
    fields: { id, vocabSize },
  });
}
