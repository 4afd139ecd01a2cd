/** Which layers each stage of a pipeline holds. */
import { ConfigError } from "../base/index.ts";
import type { LayerRange, ModelConfig } from "../model/index.ts";

/**
 * Cuts the layers into `stages` runs whose lengths differ by one at most. The longer ones come first: the last stage
 * has the head besides.
 *
 * @throws {ConfigError} if a stage would have no layer
 */
export function splitStages(
  { numHiddenLayers }: Pick<ModelConfig, "numHiddenLayers">,
  stages: number,
): readonly LayerRange[] {
  if (stages > numHiddenLayers) {
    throw new ConfigError(`${numHiddenLayers} layers do not make ${stages} stages`, {
      why: "every stage of a pipeline holds one layer at least; dualpipev has two stages per rank",
      fix: `use a layout with fewer pipeline ranks, or --set model.numHiddenLayers=${stages}`,
      fields: { numHiddenLayers, stages },
    });
  }
  const shortest = Math.floor(numHiddenLayers / stages);
  const longer = numHiddenLayers % stages;
  const start = (stage: number): number => stage * shortest + Math.min(stage, longer);
  return Array.from({ length: stages }, (_, stage) => ({ from: start(stage), to: start(stage + 1) }));
}
