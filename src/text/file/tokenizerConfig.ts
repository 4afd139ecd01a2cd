/**
 * tokenizer_config.json: which added tokens play BOS, EOS and pad. Everything else in it (chat template,
 * length limits, class names) has no part in making ids and is carried along unchanged; its
 * `tokenizer_class` is wrong for V3 (interop.md 4.3), what tokenizer.json says holds.
 */

import { isPlainObject, TokenizerError } from "../../base/index.ts";
import { specialTexts } from "../tokens/addedTokens.ts";

export interface TokenizerConfig {
  readonly bosToken: string;
  readonly eosToken: string;
  readonly padToken: string;
  /** The whole content of the file. */
  readonly content: Readonly<Record<string, unknown>>;
}

/** What a V3 checkpoint has, without a chat template. */
export const v3TokenizerConfig: TokenizerConfig = {
  bosToken: specialTexts.bos,
  eosToken: specialTexts.eos,
  padToken: specialTexts.eos,
  content: {
    add_bos_token: true,
    add_eos_token: false,
    bos_token: addedToken(specialTexts.bos),
    clean_up_tokenization_spaces: false,
    eos_token: addedToken(specialTexts.eos),
    legacy: true,
    model_max_length: 131072,
    pad_token: addedToken(specialTexts.eos),
    sp_model_kwargs: {},
    unk_token: null,
    tokenizer_class: "LlamaTokenizerFast",
  },
};

/**
 * @throws {TokenizerError} if the text is no JSON object, or asks for what the encoder does not do
 */
export function readTokenizerConfig(text: string, path = "tokenizer_config.json"): TokenizerConfig {
  const content = parseJson(text, path);
  if (!isPlainObject(content)) {
    throw new TokenizerError(`${path} is no JSON object`, {
      why: "it names the special tokens of a tokenizer by key",
      fix: "copy the file from the checkpoint again",
      fields: { path },
    });
  }
  // The two settings that would change ids or text without a token's being named.
  for (const key of ["add_eos_token", "clean_up_tokenization_spaces"]) {
    if ((content[key] ?? false) === false) continue;
    throw new TokenizerError(`${path}: ${key} is ${JSON.stringify(content[key])}`, {
      why: "V3 has false here, and nothing else is supported",
      fix: `set ${key} to false, and add EOS or clean the text in your own program`,
      fields: { path, key, value: content[key] },
    });
  }
  const bosToken = tokenText(content, "bos_token", path) ?? specialTexts.bos;
  const eosToken = tokenText(content, "eos_token", path) ?? specialTexts.eos;
  return { bosToken, eosToken, padToken: tokenText(content, "pad_token", path) ?? eosToken, content };
}

/** JSON.parse with an error that says which file is damaged. */
export function parseJson(text: string, path: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw new TokenizerError(`${path} is not JSON`, {
      why: `it has ${text.length} characters and breaks off or is damaged: ${(cause as Error).message}`,
      fix: "copy the file from the checkpoint again; compare its size",
      fields: { path, length: text.length },
      cause,
    });
  }
}

function addedToken(content: string): Readonly<Record<string, unknown>> {
  return {
    __type: "AddedToken",
    content,
    lstrip: false,
    normalized: true,
    rstrip: false,
    single_word: false,
  };
}

/** A token is written as a string or as an object with `content`; null and no key mean none. */
function tokenText(
  content: Readonly<Record<string, unknown>>,
  key: string,
  path: string,
): string | undefined {
  const value = content[key] ?? undefined;
  if (value === undefined || typeof value === "string") return value;
  if (isPlainObject(value) && typeof value["content"] === "string") return value["content"];
  throw new TokenizerError(`${path}: ${key} is ${JSON.stringify(value)}`, {
    why: "a token is a string or an object with a string in `content`",
    fix: `write the text of the token, for example ${JSON.stringify(specialTexts.bos)}`,
    fields: { path, key, value },
  });
}
