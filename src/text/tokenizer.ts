/**
 * Text to token ids and back: added tokens (tokens/addedTokens.ts), pieces (pretokenizer.ts), merges (bpe.ts).
 * Where the vocabulary comes from: vocabulary.ts (ours), trainer.ts, tokenizerJson.ts (a file).
 */

import { TokenizerError } from "../base/index.ts";
import { BytePairEncoder, IdList } from "./bpe.ts";
import type { TokenizerConfig } from "./file/tokenizerConfig.ts";
import { PieceScanner } from "./pretokenizer.ts";
import { StreamDecoder } from "./streamDecoder.ts";
import { growUint8 } from "./tables/growable.ts";
import type { MergeTable } from "./tables/mergeTable.ts";
import { TimeSlice } from "./timeSlice.ts";
import { type AddedToken, AddedTokenFinder, specialTexts } from "./tokens/addedTokens.ts";
import { findFusedTokens } from "./tokens/fusedTokens.ts";
import type { TokenBytes } from "./tokens/tokenBytes.ts";

/** All that a tokenizer consists of. */
export interface Vocabulary {
  /** Bytes by id; those of an added token are its text. */
  readonly tokens: TokenBytes;
  /** [256] the id of each byte. */
  readonly byteIds: Int32Array;
  readonly merges: MergeTable;
  readonly addedTokens: readonly AddedToken[];
  readonly config: TokenizerConfig;
}

export interface EncodeOptions {
  /** Whether texts of added tokens in `text` become those tokens. Never for text of a user; default false. */
  readonly allowSpecial?: boolean;
  /** Whether the ids begin with BOS; default false. */
  readonly addBos?: boolean;
}

export interface DecodeOptions {
  /** Whether tokens flagged special (BOS, EOS, pad...) leave no text; default false. */
  readonly skipSpecial?: boolean;
}

/** Ids of the fill-in-the-middle tokens; order in a row: begin, prefix, hole, suffix, end, middle. */
export interface FimIds {
  readonly beginId: number;
  readonly holeId: number;
  readonly endId: number;
}

export class Tokenizer {
  readonly vocabulary: Vocabulary;
  /** Highest id + 1. A model may have more rows; mask their logits when sampling. */
  readonly vocabSize: number;
  readonly bosId: number;
  readonly eosId: number;
  /** The pad text of V3, not EOS, which V3's tokenizer_config.json names for padding and training learns. */
  readonly padId: number;
  /** undefined if the vocabulary lacks one of the three. */
  readonly fim: FimIds | undefined;
  readonly userId: number | undefined;
  readonly assistantId: number | undefined;

  private readonly idsByContent: ReadonlyMap<string, number>;
  private readonly specialIds: ReadonlySet<number>;
  private readonly finder: AddedTokenFinder;
  private readonly scanner: PieceScanner = new PieceScanner();
  private readonly bpe: BytePairEncoder;
  private readonly fused: ReadonlyMap<number, number>;

  constructor(vocabulary: Vocabulary) {
    this.vocabulary = vocabulary;
    this.vocabSize = vocabulary.tokens.size;
    this.idsByContent = new Map(vocabulary.addedTokens.map(({ content, id }) => [content, id]));
    this.specialIds = new Set(vocabulary.addedTokens.filter(({ special }) => special).map(({ id }) => id));
    this.finder = new AddedTokenFinder(vocabulary.addedTokens);
    this.bpe = new BytePairEncoder(vocabulary.byteIds, vocabulary.merges);
    this.fused = findFusedTokens(vocabulary.tokens);

    this.bosId = this.requireId(vocabulary.config.bosToken);
    this.eosId = this.requireId(vocabulary.config.eosToken);
    this.padId = this.idOf(specialTexts.pad) ?? this.requireId(vocabulary.config.padToken);
    this.fim = this.fimIds();
    this.userId = this.idOf(specialTexts.user);
    this.assistantId = this.idOf(specialTexts.assistant);
  }

  /**
   * The ids of a text.
   *
   * A lone surrogate, which UTF-8 cannot say, is read as U+FFFD; every other string comes back from
   * `decode` unchanged.
   */
  encode(text: string, options: EncodeOptions = {}): Int32Array {
    const output = new IdList();
    for (const _ of this.encodeInParts(text, options, output));
    return output.toArray();
  }

  /**
   * `encode` for long texts: the same ids, but the event loop turns about every 10 ms.
   *
   * @param signal  stops it: the promise rejects with the signal's reason
   */
  async encodeInSlices(text: string, options: EncodeOptions = {}, signal?: AbortSignal): Promise<Int32Array> {
    const slice = new TimeSlice(signal);
    const output = new IdList();
    for (const _ of this.encodeInParts(text, options, output)) if (slice.isOver) await slice.next();
    return output.toArray();
  }

  /**
   * The text of ids. Bytes that are no UTF-8 (a token may end inside a character) become U+FFFD.
   *
   * @throws {TokenizerError} on an id that the vocabulary does not have
   */
  decode(ids: Iterable<number>, options: DecodeOptions = {}): string {
    let text: Uint8Array = new Uint8Array(1024);
    let length = 0;
    for (const id of ids) {
      const bytes = this.visibleBytes(id, options);
      text = growUint8(text, length + bytes.length);
      text.set(bytes, length);
      length += bytes.length;
    }
    // ignoreBOM: a text may begin with U+FEFF, which a TextDecoder would swallow.
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(text.subarray(0, length));
  }

  /** Decodes ids as they come, and holds back the bytes of a character that is not complete. */
  streamDecoder(options: DecodeOptions = {}): StreamDecoder {
    return new StreamDecoder((id) => this.visibleBytes(id, options));
  }

  /** A copy of the bytes that a token stands for; of an added token, its text. */
  bytesOf(id: number): Uint8Array {
    return this.vocabulary.tokens.of(id).slice();
  }

  /** The id of an added token by its text; undefined if there is none. */
  idOf(content: string): number | undefined {
    return this.idsByContent.get(content);
  }

  /** Whether a token joins punctuation with the line breaks after it (spec 2.3, token-boundary bias). */
  fusedPunctuation(id: number): boolean {
    return this.fused.has(id);
  }

  /**
   * The ids of the two halves of a token that joins punctuation with line breaks.
   *
   * @throws {TokenizerError} if the token is none
   */
  splitFused(id: number): readonly [punctuation: Int32Array, lineBreaks: Int32Array] {
    const cut = this.fused.get(id);
    if (cut === undefined) {
      throw new TokenizerError(`token ${id} cannot be split`, {
        why: "only a token that joins punctuation with line breaks has two halves",
        fix: "ask fusedPunctuation(id) first",
        fields: { id },
      });
    }
    const bytes = this.vocabulary.tokens.of(id);
    return [this.encodePiece(bytes.subarray(0, cut)), this.encodePiece(bytes.subarray(cut))];
  }

  private visibleBytes(id: number, options: DecodeOptions): Uint8Array {
    return options.skipSpecial === true && this.specialIds.has(id) ? nothing : this.vocabulary.tokens.of(id);
  }

  /** Appends the ids of a text; yields now and then, so that the caller may pause. */
  private *encodeInParts(text: string, options: EncodeOptions, output: IdList): Generator<void> {
    if (options.addBos === true) output.push(this.bosId);
    const segments = options.allowSpecial === true ? this.finder.split(text) : [{ text }];
    for (const segment of segments) {
      if ("id" in segment) {
        output.push(segment.id);
        continue;
      }
      const bytes = utf8.encode(segment.text);
      for (let start = 0; start < bytes.length; yield) {
        start = this.encodePieces(bytes, start, start + BYTES_PER_PART, output);
      }
    }
  }

  /** Encodes the pieces that start in [start, stop); returns where the next one starts. */
  private encodePieces(bytes: Uint8Array, start: number, stop: number, output: IdList): number {
    let at = start;
    while (at < stop && at < bytes.length) {
      const end = this.scanner.pieceEnd(bytes, at);
      this.bpe.encode(bytes, at, end, output);
      at = end;
    }
    return at;
  }

  private encodePiece(bytes: Uint8Array): Int32Array {
    const output = new IdList();
    this.bpe.encode(bytes, 0, bytes.length, output);
    return output.toArray();
  }

  private fimIds(): FimIds | undefined {
    const beginId = this.idOf(specialTexts.fimBegin);
    const holeId = this.idOf(specialTexts.fimHole);
    const endId = this.idOf(specialTexts.fimEnd);
    if (beginId === undefined || holeId === undefined || endId === undefined) return undefined;
    return { beginId, holeId, endId };
  }

  private requireId(content: string): number {
    const id = this.idOf(content);
    if (id !== undefined) return id;
    throw new TokenizerError(`the tokenizer has no added token ${JSON.stringify(content)}`, {
      why: "tokenizer_config.json (or V3's default) names it as BOS, EOS or pad",
      fix: "use the tokenizer.json and the tokenizer_config.json of one checkpoint together",
      fields: { content },
    });
  }
}

/** Between two offers to pause: about a millisecond. */
const BYTES_PER_PART = 16_384;

const utf8 = new TextEncoder();
const nothing = new Uint8Array(0);
