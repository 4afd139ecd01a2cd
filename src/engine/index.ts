export type { Runner, SamplingSettings } from "./decoder.ts";
export { type GenerateOptions, generateIds } from "./generate.ts";
export { KvCache } from "./kvCache.ts";
