/**
 * Added tokens: texts with an id of their own that are found in the raw text before any splitting and
 * bypass BPE. The texts and flags are V3's (bars are U+FF5C, low lines U+2581).
 *
 * Source: interop.md 4.2.
 */

export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** Left out by decoding with `skipSpecial`. V3's FIM and chat tokens are not special in this sense. */
  readonly special: boolean;
  /** Looked for after all tokens that are not normalized; the normalizer itself is empty. */
  readonly normalized: boolean;
}

/** What V3's added tokens are called in this code. */
export const specialTexts = {
  bos: "<｜begin▁of▁sentence｜>",
  eos: "<｜end▁of▁sentence｜>",
  pad: "<｜▁pad▁｜>",
  fimHole: "<｜fim▁hole｜>",
  fimBegin: "<｜fim▁begin｜>",
  fimEnd: "<｜fim▁end｜>",
  user: "<｜User｜>",
  assistant: "<｜Assistant｜>",
} as const;

/** The first ids of every vocabulary of V3's form, before the 256 bytes. */
export const leadingSpecials: readonly string[] = [specialTexts.bos, specialTexts.eos, specialTexts.pad];

/** The last ids of a vocabulary that we train, in V3's order. */
export const trailingSpecials: readonly string[] = [
  specialTexts.fimHole,
  specialTexts.fimBegin,
  specialTexts.fimEnd,
  specialTexts.user,
  specialTexts.assistant,
];

/** A stretch of text: an added token, or what lies between two of them. */
export type Segment = { readonly text: string } | { readonly id: number };

/** Cuts text at its added tokens: leftmost first, and of several at one place the longest. */
export class AddedTokenFinder {
  private readonly tries: readonly Trie[];

  constructor(tokens: readonly AddedToken[]) {
    const plain = tokens.filter(({ normalized }) => !normalized);
    const normalized = tokens.filter((token) => token.normalized);
    this.tries = [plain, normalized].filter(({ length }) => length > 0).map(makeTrie);
  }

  split(text: string): Segment[] {
    let segments: Segment[] = [{ text }];
    for (const trie of this.tries) {
      segments = segments.flatMap((segment) =>
        "text" in segment ? splitByTrie(segment.text, trie) : [segment],
      );
    }
    return segments;
  }
}

interface TrieNode {
  readonly children: Map<number, TrieNode>;
  /** The token that ends here. */
  token?: AddedToken;
}

interface Trie {
  readonly root: TrieNode;
  /** 1 for the UTF-16 units that begin a token: a table, because every unit of the text asks. */
  readonly isFirst: Uint8Array;
}

function makeTrie(tokens: readonly AddedToken[]): Trie {
  const root: TrieNode = { children: new Map() };
  const isFirst = new Uint8Array(0x10000);
  for (const token of tokens) {
    let node = root;
    isFirst[token.content.charCodeAt(0)] = 1;
    for (let at = 0; at < token.content.length; at++) {
      const unit = token.content.charCodeAt(at);
      const child = node.children.get(unit) ?? { children: new Map() };
      node.children.set(unit, child);
      node = child;
    }
    node.token = token;
  }
  return { root, isFirst };
}

function splitByTrie(text: string, { root, isFirst }: Trie): Segment[] {
  const segments: Segment[] = [];
  let textStart = 0;
  for (let at = 0; at < text.length; ) {
    const token = isFirst[text.charCodeAt(at)] === 1 ? longestAt(text, at, root) : undefined;
    if (token === undefined) {
      at++;
      continue;
    }
    if (at > textStart) segments.push({ text: text.slice(textStart, at) });
    segments.push({ id: token.id });
    at += token.content.length;
    textStart = at;
  }
  if (textStart < text.length) segments.push({ text: text.slice(textStart) });
  return segments;
}

function longestAt(text: string, start: number, root: TrieNode): AddedToken | undefined {
  let longest: AddedToken | undefined;
  let node: TrieNode | undefined = root;
  for (let at = start; node !== undefined; at++) {
    longest = node.token ?? longest;
    node = node.children.get(text.charCodeAt(at));
  }
  return longest;
}
