import { describe, expect, test } from "vitest";
import { countParameters, presetConfig } from "../model/index.ts";
import { stageParameters, totalParameters } from "./parameters.ts";
import { type Stage, splitStages } from "./stages.ts";

const v3 = presetConfig("v3-671b");
const moeLayer: Stage = { denseLayers: 0, moeLayers: 1, hasEmbedding: false, hasHead: false, mtpModules: 0 };

describe("stageParameters", () => {
  test("a device has 409,157,888 parameters of a MoE layer under EP 64, 3.27 billion of eight", () => {
    expect(totalParameters(stageParameters(v3, moeLayer, 64))).toBe(409_157_888);
    const eight = totalParameters(stageParameters(v3, { ...moeLayer, moeLayers: 8 }, 64));
    expect(eight / 1e9).toBeCloseTo(3.27, 2);
  });

  test.each([1, 4, 16])(
    "%i stages hold the whole model with its MTP module, the embedding of MTP once more",
    (numStages) => {
      const stages = splitStages(v3, numStages, { dense: 1, moe: 1, tail: 2.6 }, false);
      const sum = stages.reduce((total, stage) => {
        const { replicatedLinear, replicatedOther, experts } = stageParameters(v3, stage, 64);
        return total + replicatedLinear + replicatedOther + 64 * experts;
      }, 0);
      const { main, mtpModule, embedding } = countParameters(v3);
      expect(sum).toBe(main + mtpModule + (numStages > 1 ? embedding : 0));
    },
  );

  test("all models' stages add up", () => {
    for (const name of ["unit", "nano", "v2-lite-16b", "moonlight-16b-a3b"]) {
      const config = presetConfig(name);
      const [stage] = splitStages(config, 1, { dense: 1, moe: 1, tail: 1 }, false);
      const { main, mtpModule } = countParameters(config);
      const expected = main + config.numNextnPredictLayers * mtpModule;
      expect([name, totalParameters(stageParameters(config, stage!, 1))]).toEqual([name, expected]);
    }
  });
});
