import { TokenizerError } from "../base/index.ts";

/** The bytes of every token, in one arena: a view for each of 128,000 ids would take 20 times the memory. */
export class TokenBytes {
  private readonly arena: Uint8Array;
  private readonly ends: Int32Array;

  constructor(tokens: readonly (Uint8Array | undefined)[]) {
    this.ends = new Int32Array(tokens.length);
    let end = 0;
    for (const [id, bytes] of tokens.entries()) {
      end += bytes?.length ?? 0;
      this.ends[id] = end;
    }
    this.arena = new Uint8Array(end);
    for (const [id, bytes] of tokens.entries()) {
      if (bytes !== undefined) this.arena.set(bytes, this.ends[id]! - bytes.length);
    }
  }

  get size(): number {
    return this.ends.length;
  }

  /** A view of the bytes of a token. */
  of(id: number): Uint8Array {
    const end = this.ends[id];
    const start = id === 0 ? 0 : this.ends[id - 1];
    if (end === undefined || start === end) throw unknownId(id, this.ends.length);
    return this.arena.subarray(start, end);
  }

  /** Whether the last byte of a token is CR or LF. */
  endsWithLineBreak(id: number): boolean {
    const last = this.arena[this.ends[id]! - 1];
    return (last === 0x0a || last === 0x0d) && this.ends[id] !== this.ends[id - 1];
  }
}

function unknownId(id: number, vocabSize: number): TokenizerError {
  return new TokenizerError(`token id ${id} stands for nothing`, {
    why: `the tokenizer has the ids 0 to ${vocabSize - 1}, with gaps if its file leaves some out`,
    fix: "mask the logits of ids that the tokenizer lacks when sampling, or use the model's own tokenizer",
    fields: { id, vocabSize },
  });
}
