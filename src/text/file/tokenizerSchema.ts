/**
 * The anatomy of tokenizer.json as V3's release has it, and nothing else: what another release's file may ask for that
 * changes ids (normalizers, dropout, other splits, templates) must not pass in silence.
 *
 * Source: interop.md 4.1. The content of vocab and merges is checked in fileVocabulary.ts.
 */

import { z } from "zod";
import { TokenizerError } from "../../base/index.ts";
import { preTokenizerPatterns } from "../pretokenizer.ts";

const byteLevel = z.strictObject({
  type: z.literal("ByteLevel"),
  add_prefix_space: z.boolean().optional(),
  trim_offsets: z.boolean().optional(),
  use_regex: z.boolean().optional(),
});

const split = (pattern: string) =>
  z.strictObject({
    type: z.literal("Split"),
    pattern: z.strictObject({ Regex: z.literal(pattern) }),
    behavior: z.literal("Isolated"),
    invert: z.literal(false).optional(),
  });

const noText = z.union([z.null(), z.literal("")]).optional();
const no = z.literal(false).optional();

const addedToken = z.strictObject({
  id: z.int().nonnegative(),
  content: z.string().min(1),
  single_word: no,
  lstrip: no,
  rstrip: no,
  normalized: z.boolean(),
  special: z.boolean(),
});

const fileSchema = z.strictObject({
  version: z.literal("1.0"),
  truncation: z.null().optional(),
  padding: z.null().optional(),
  added_tokens: z.array(addedToken),
  normalizer: z.strictObject({ type: z.literal("Sequence"), normalizers: z.tuple([]) }).nullish(),
  pre_tokenizer: z.strictObject({
    type: z.literal("Sequence"),
    pretokenizers: z.tuple([
      split(preTokenizerPatterns[0]),
      split(preTokenizerPatterns[1]),
      split(preTokenizerPatterns[2]),
      byteLevel.extend({ add_prefix_space: z.literal(false), use_regex: z.literal(false) }),
    ]),
  }),
  // ByteLevel here moves offsets only; it adds no token.
  post_processor: byteLevel.nullish(),
  decoder: byteLevel,
  model: z.strictObject({
    type: z.literal("BPE"),
    dropout: z.union([z.null(), z.literal(0)]).optional(),
    unk_token: z.null().optional(),
    continuing_subword_prefix: noText,
    end_of_word_suffix: noText,
    fuse_unk: no,
    byte_fallback: no,
    ignore_merges: no,
    vocab: z.custom<Readonly<Record<string, unknown>>>(
      (value) => typeof value === "object" && value !== null && !Array.isArray(value),
      "expected an object of token to id",
    ),
    merges: z.array(z.unknown()),
  }),
});

/** What is left to look at in a tokenizer.json of the right form. */
export interface TokenizerFile {
  readonly added_tokens: readonly {
    readonly id: number;
    readonly content: string;
    readonly normalized: boolean;
    readonly special: boolean;
  }[];
  readonly model: {
    readonly vocab: Readonly<Record<string, unknown>>;
    readonly merges: readonly unknown[];
  };
}

/**
 * @throws {TokenizerError} on the first part that is missing, unknown or not supported
 */
export function checkForm(content: unknown): TokenizerFile {
  const result = fileSchema.safeParse(content);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const keys = issue.code === "unrecognized_keys" ? issue.keys.slice(0, 1) : [];
  const path = [...issue.path, ...keys];
  const place = path.length === 0 ? "its content" : path.join(".");
  const value = path.reduce<unknown>((inner, key) => (inner as Record<PropertyKey, unknown>)?.[key], content);
  throw new TokenizerError(`tokenizer.json: ${place} is ${shorten(value)}`, {
    why: `byte-level BPE with DeepSeek-V3's pre-tokenizer is read, all else would give other ids: ${issue.message}`,
    fix: "use the tokenizer.json of a model of the V3 family, or train one with `minke tokenizer train`",
    fields: { path: place, value },
  });
}

function shorten(value: unknown): string {
  if (value === undefined) return "missing";
  const text = JSON.stringify(value);
  return text.length <= 80 ? text : `${text.slice(0, 77)}...`;
}
