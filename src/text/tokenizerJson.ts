/**
 * tokenizer.json, Hugging Face's file of a tokenizer: read into a Tokenizer and written from one.
 * The form is checked in file/tokenizerSchema.ts, the content in file/fileVocabulary.ts.
 */

import { readVocabulary } from "./file/fileVocabulary.ts";
import { parseJson, readTokenizerConfig, v3TokenizerConfig } from "./file/tokenizerConfig.ts";
import { checkForm } from "./file/tokenizerSchema.ts";
import { preTokenizerPatterns } from "./pretokenizer.ts";
import { Tokenizer } from "./tokenizer.ts";
import { bytesToSymbols } from "./tokens/byteSymbols.ts";

/**
 * A tokenizer from the text of its files.
 *
 * @param tokenizerJson    the content of tokenizer.json
 * @param tokenizerConfig  the content of tokenizer_config.json; without it BOS, EOS and pad are V3's
 * @throws {TokenizerError} if a file is damaged or asks for something that would be ignored
 */
export function readTokenizer(tokenizerJson: string, tokenizerConfig?: string): Tokenizer {
  const file = checkForm(parseJson(tokenizerJson, "tokenizer.json"));
  const config = tokenizerConfig === undefined ? v3TokenizerConfig : readTokenizerConfig(tokenizerConfig);
  return new Tokenizer({ ...readVocabulary(file), config });
}

/** The content of tokenizer.json, which any loader of Hugging Face's format reads. */
export function writeTokenizerJson(tokenizer: Tokenizer): string {
  const byteLevel = {
    type: "ByteLevel",
    add_prefix_space: true,
    trim_offsets: true,
    use_regex: true,
  } as const;
  const file = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: tokenizer.vocabulary.addedTokens.map(({ id, content, special, normalized }) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized,
      special,
    })),
    normalizer: { type: "Sequence", normalizers: [] },
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        split(preTokenizerPatterns[0]),
        split(preTokenizerPatterns[1]),
        split(preTokenizerPatterns[2]),
        { ...byteLevel, add_prefix_space: false, use_regex: false },
      ],
    },
    post_processor: { ...byteLevel, trim_offsets: false },
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ...vocabAndMerges(tokenizer),
    },
  };
  return `${JSON.stringify(file, null, 1)}\n`;
}

/** The content of tokenizer_config.json. */
export function writeTokenizerConfig(tokenizer: Tokenizer): string {
  return `${JSON.stringify(tokenizer.vocabulary.config.content, null, 2)}\n`;
}

/** V3's form: the vocabulary ends with the last merge; added tokens behind it stand in added_tokens only. */
function vocabAndMerges(tokenizer: Tokenizer): { vocab: Record<string, number>; merges: string[] } {
  const { tokens, merges, addedTokens } = tokenizer.vocabulary;
  const contents = new Map(addedTokens.map(({ id, content }) => [id, content]));
  const symbolsOf = (id: number): string => bytesToSymbols(tokens.of(id));
  const entries: [string, number][] = [];
  for (let id = 0; id < tokens.size; id++) {
    if (tokens.has(id)) entries.push([contents.get(id) ?? symbolsOf(id), id]);
  }
  const end = entries.findLastIndex(([, id]) => !contents.has(id)) + 1;
  return {
    // Not by assignment, which would take a token "__proto__" for something else.
    vocab: Object.fromEntries(entries.slice(0, end)),
    merges: Array.from(
      { length: merges.size },
      (_, rank) => `${symbolsOf(merges.leftOf(rank))} ${symbolsOf(merges.rightOf(rank))}`,
    ),
  };
}

function split(pattern: string) {
  return { type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false } as const;
}
