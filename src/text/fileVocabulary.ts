/**
 * The vocabulary of a tokenizer.json, checked: every id stands for one token, every byte has an id, every
 * merge joins two known tokens into a third. A file of the right form can still be damaged here.
 */

import { TokenizerError } from "../base/index.ts";
import type { AddedToken } from "./addedTokens.ts";
import { MAX_MERGES, type Merge } from "./bpe.ts";
import { byteSymbols, symbolsToBytes } from "./byteSymbols.ts";
import { PairTable } from "./pairTable.ts";
import type { Vocabulary } from "./tokenizer.ts";
import type { TokenizerFile } from "./tokenizerSchema.ts";

/** Room for eight times V3's vocabulary; an id beyond it is damage, and would ask for the memory. */
const MAX_IDS = 1 << 20;

/** @throws {TokenizerError} on the first entry that contradicts another */
export function readVocabulary(file: TokenizerFile): Omit<Vocabulary, "config"> {
  const addedTokens: AddedToken[] = file.added_tokens.map(({ id, content, special, normalized }) => ({
    id,
    content,
    special,
    normalized,
  }));
  const tokens = new TokensById();
  for (const { id, content } of addedTokens) tokens.add(id, content, new TextEncoder().encode(content));
  for (const [symbols, id] of Object.entries(file.model.vocab)) {
    if (tokens.idsByText.get(symbols) === id) continue; // an added token that stands in both lists
    tokens.add(id, symbols, symbolsToBytes(symbols));
  }
  return {
    tokens: Array.from(tokens.bytesById),
    byteIds: readByteIds(tokens.idsByText),
    merges: readMerges(file.model.merges, tokens.idsByText),
    addedTokens,
  };
}

class TokensById {
  readonly idsByText: Map<string, number> = new Map();
  readonly bytesById: (Uint8Array | undefined)[] = [];
  private readonly textsById: string[] = [];

  /** `bytes` is undefined or empty for a text that is not written in byte symbols. */
  add(id: unknown, text: string, bytes: Uint8Array | undefined): void {
    const token = JSON.stringify(text);
    if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id >= MAX_IDS) {
      throw damaged(`token ${token} has the id ${JSON.stringify(id)}`, `ids go from 0 to ${MAX_IDS - 1}`, {
        text,
      });
    }
    const otherText = this.textsById[id];
    if (otherText !== undefined) {
      throw damaged(`id ${id} stands for ${JSON.stringify(otherText)} and for ${token}`, "it can mean one", {
        id,
      });
    }
    const otherId = this.idsByText.get(text);
    if (otherId !== undefined) {
      throw damaged(`token ${token} has the ids ${otherId} and ${id}`, "it must have one", { text });
    }
    if (bytes === undefined || bytes.length === 0) {
      throw damaged(`vocab has the token ${token}`, "it is not written in byte symbols", { id, text });
    }
    this.idsByText.set(text, id);
    this.textsById[id] = text;
    this.bytesById[id] = bytes;
  }
}

function readByteIds(idsByText: ReadonlyMap<string, number>): Int32Array {
  return Int32Array.from(byteSymbols, (symbol, byte) => {
    const id = idsByText.get(symbol);
    if (id !== undefined) return id;
    throw damaged(
      `vocab lacks the byte ${byte} (${JSON.stringify(symbol)})`,
      "all 256 bytes must have a token",
      {
        byte,
      },
    );
  });
}

function readMerges(merges: readonly unknown[], idsByText: ReadonlyMap<string, number>): Merge[] {
  if (merges.length > MAX_MERGES) {
    throw damaged(`there are ${merges.length} merges`, `at most ${MAX_MERGES} can be ranked`, {});
  }
  const known = new PairTable();
  return merges.map((merge, rank): Merge => {
    const [leftText, rightText] = mergeParts(merge, rank);
    const left = idsByText.get(leftText);
    const right = idsByText.get(rightText);
    const id = idsByText.get(leftText + rightText);
    if (left === undefined || right === undefined || id === undefined) {
      const missing = left === undefined ? leftText : right === undefined ? rightText : leftText + rightText;
      throw damaged(
        `merge ${rank} (${JSON.stringify(merge)}) needs the token ${JSON.stringify(missing)}`,
        "vocab does not have it",
        { rank, missing },
      );
    }
    if (known.add(left, right) !== rank) {
      throw damaged(`merge ${rank} (${JSON.stringify(merge)}) stands there twice`, "a pair has one rank", {
        rank,
      });
    }
    return { left, right, id };
  });
}

/** "left right" as V3 writes it, or ["left", "right"] as newer files do. */
function mergeParts(merge: unknown, rank: number): readonly [string, string] {
  const parts: unknown = typeof merge === "string" ? merge.split(" ") : merge;
  if (Array.isArray(parts) && parts.length === 2) {
    const [left, right] = parts as unknown[];
    if (typeof left === "string" && typeof right === "string") return [left, right];
  }
  throw damaged(`merge ${rank} is ${JSON.stringify(merge)}`, "a merge is two tokens with one space between", {
    rank,
  });
}

function damaged(what: string, why: string, fields: Readonly<Record<string, unknown>>): TokenizerError {
  return new TokenizerError(`tokenizer.json: ${what}`, {
    why,
    fix: "the file is damaged: copy it from the checkpoint again",
    fields,
  });
}
