export { type GenerateOptions, generateIds, type Runner, type SamplingSettings } from "./generate.ts";
export { KvCache } from "./kvCache.ts";
