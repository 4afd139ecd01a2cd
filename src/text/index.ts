export type { TokenizerConfig } from "./file/tokenizerConfig.ts";
export type { StreamDecoder } from "./streamDecoder.ts";
export type { MergeTable } from "./tables/mergeTable.ts";
export {
  type DecodeOptions,
  type EncodeOptions,
  type FimIds,
  Tokenizer,
  type Vocabulary,
} from "./tokenizer.ts";
export { readTokenizer, writeTokenizerConfig, writeTokenizerJson } from "./tokenizerJson.ts";
export type { AddedToken } from "./tokens/addedTokens.ts";
export type { TokenBytes } from "./tokens/tokenBytes.ts";
export { type TrainerOptions, type TrainerProgress, trainTokenizer } from "./trainer.ts";
export { byteTokenizer } from "./vocabulary.ts";
