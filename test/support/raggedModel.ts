/** A config whose matrices have more than one FP8 block, none a whole number of them. */
import type { ModelConfig } from "../../src/model/index.ts";
import { tinyConfig } from "./tinyModel.ts";

export function raggedConfig(changes: Partial<ModelConfig> = {}): ModelConfig {
  return tinyConfig({
    hiddenSize: 144,
    intermediateSize: 200,
    moeIntermediateSize: 136,
    nRoutedExperts: 4,
    nGroup: 1,
    topkGroup: 1,
    ...changes,
  });
}
