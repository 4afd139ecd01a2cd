export type { AddedToken } from "./addedTokens.ts";
export type { StreamDecoder } from "./streamDecoder.ts";
export {
  type DecodeOptions,
  type EncodeOptions,
  type FimIds,
  Tokenizer,
  type Vocabulary,
} from "./tokenizer.ts";
export { readTokenizer, writeTokenizerConfig, writeTokenizerJson } from "./tokenizerJson.ts";
export { type TrainerOptions, type TrainerProgress, trainTokenizer } from "./trainer.ts";
export { byteTokenizer } from "./vocabulary.ts";
