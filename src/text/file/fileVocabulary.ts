/**
 * The vocabulary of a tokenizer.json, checked: every id stands for one token, every byte has an id, every
 * merge joins two known tokens into a third. A file of the right form can still be damaged here.
 */

import { TokenizerError } from "../../base/index.ts";
import { MAX_MERGES, MergeTable } from "../tables/mergeTable.ts";
import type { Vocabulary } from "../tokenizer.ts";
import type { AddedToken } from "../tokens/addedTokens.ts";
import { byteSymbols, symbolsToBytes } from "../tokens/byteSymbols.ts";
import { TokenBytes } from "../tokens/tokenBytes.ts";
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
  const { vocab, merges } = file.model;
  const symbols = Object.keys(vocab);
  const addedOnly = addedTokens.filter(({ content }) => !Object.hasOwn(vocab, content));
  const index = new TokenIndex(symbols.length + addedOnly.length);
  for (const { id, content } of addedTokens) index.add(id, content, new TextEncoder().encode(content));
  for (const text of symbols) {
    // An added token may stand in both lists.
    if (index.idsByText.get(text) !== vocab[text]) index.add(vocab[text], text, symbolsToBytes(text));
  }
  return {
    tokens: new TokenBytes(index.bytesById),
    byteIds: readByteIds(index.idsByText),
    merges: readMerges(merges, index.idsByText),
    addedTokens,
  };
}

class TokenIndex {
  readonly idsByText: Map<string, number> = new Map();
  readonly bytesById: (Uint8Array | undefined)[];
  private readonly textsById: (string | undefined)[];

  // At full length from the start: numbers come first among the keys of an object, with ids far apart, and
  // an array that grows by leaps becomes a slow one.
  constructor(numIds: number) {
    this.bytesById = new Array<undefined>(numIds);
    this.textsById = new Array<undefined>(numIds);
  }

  /** `bytes` is undefined or empty for a text that is not written in byte symbols. */
  add(id: unknown, text: string, bytes: Uint8Array | undefined): void {
    if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id >= MAX_IDS) {
      throw damaged(`${quote(text)} has the id ${JSON.stringify(id)}`, `ids go from 0 to ${MAX_IDS - 1}`, {
        text,
      });
    }
    const otherText = this.textsById[id];
    if (otherText !== undefined) {
      throw damaged(`id ${id} stands for ${quote(otherText)} and ${quote(text)}`, "it can mean one", { id });
    }
    const otherId = this.idsByText.get(text);
    if (otherId !== undefined) {
      throw damaged(`${quote(text)} has the ids ${otherId} and ${id}`, "it must have one", { text });
    }
    if (bytes === undefined || bytes.length === 0) {
      throw damaged(`vocab has the token ${quote(text)}`, "it is not written in byte symbols", { id, text });
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
    throw damaged(`vocab lacks the byte ${byte} (${quote(symbol)})`, "all 256 bytes must have a token", {
      byte,
    });
  });
}

function readMerges(list: readonly unknown[], idsByText: ReadonlyMap<string, number>): MergeTable {
  if (list.length > MAX_MERGES) {
    throw damaged(`there are ${list.length} merges`, `at most ${MAX_MERGES} can be ranked`, {});
  }
  const merges = new MergeTable();
  for (const [rank, merge] of list.entries()) {
    const [leftText, rightText] = mergeParts(merge, rank);
    const left = idsByText.get(leftText);
    const right = idsByText.get(rightText);
    const id = idsByText.get(leftText + rightText);
    if (left === undefined || right === undefined || id === undefined) {
      const missing = left === undefined ? leftText : right === undefined ? rightText : leftText + rightText;
      throw damaged(
        `merge ${rank} (${quote(merge)}) needs the token ${quote(missing)}`,
        "vocab does not have it",
        {
          rank,
          missing,
        },
      );
    }
    if (!merges.add(left, right, id)) {
      throw damaged(`merge ${rank} (${quote(merge)}) stands there twice`, "a pair has one rank", { rank });
    }
  }
  return merges;
}

/** "left right" as V3 writes it, or ["left", "right"] as newer files do. */
function mergeParts(merge: unknown, rank: number): readonly [string, string] {
  if (typeof merge === "string") {
    const space = merge.indexOf(" ");
    if (space >= 0 && space === merge.lastIndexOf(" "))
      return [merge.slice(0, space), merge.slice(space + 1)];
  } else if (Array.isArray(merge) && merge.length === 2) {
    const [left, right] = merge as unknown[];
    if (typeof left === "string" && typeof right === "string") return [left, right];
  }
  throw damaged(`merge ${rank} is ${quote(merge)}`, "a merge is two tokens with one space between", { rank });
}

function quote(value: unknown): string {
  return JSON.stringify(value);
}

function damaged(what: string, why: string, fields: Readonly<Record<string, unknown>>): TokenizerError {
  return new TokenizerError(`tokenizer.json: ${what}`, {
    why,
    fix: "the file is damaged: copy it from the checkpoint again",
    fields,
  });
}
