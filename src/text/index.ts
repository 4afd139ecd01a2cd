export type { AddedToken } from "./addedTokens.ts";
export type { MergeTable } from "./mergeTable.ts";
export type { StreamDecoder } from "./streamDecoder.ts";
export type { TokenBytes } from "./tokenBytes.ts";
export {
  type DecodeOptions,
  type EncodeOptions,
  type FimIds,
  Tokenizer,
  type Vocabulary,
} from "./tokenizer.ts";
export type { TokenizerConfig } from "./tokenizerConfig.ts";
export { readTokenizer, writeTokenizerConfig, writeTokenizerJson } from "./tokenizerJson.ts";
export { type TrainerOptions, type TrainerProgress, trainTokenizer } from "./trainer.ts";
export { byteTokenizer } from "./vocabulary.ts";
