/** How each preset is trained: where it departs from the report's recipe, which configSchema.ts writes out. */
import type { TrainConfig } from "./config.ts";

export interface Recipe {
  readonly tokensPerStep: number;
  readonly optimizer: Partial<TrainConfig["optimizer"]> & { readonly learningRate: number };
  readonly schedule?: Partial<TrainConfig["schedule"]>;
  readonly mtp?: Partial<TrainConfig["mtp"]>;
  readonly data?: Partial<TrainConfig["data"]>;
  readonly evaluate?: Partial<TrainConfig["evaluate"]>;
  readonly checkpoint?: Partial<TrainConfig["checkpoint"]>;
}

export const recipes: Readonly<Record<string, Recipe>> = {
  unit: { tokensPerStep: 2048, optimizer: { learningRate: 4e-3 } },
  micro: { tokensPerStep: 2048, optimizer: { learningRate: 3e-3 } },
  nano: { tokensPerStep: 2048, optimizer: { learningRate: 2e-3 } },
  mini: { tokensPerStep: 2048, optimizer: { learningRate: 1e-3 } },
  /** A few hundred steps on a million bytes: figures and what did not help in docs/log/2026-11-22-race.md. */
  shakespeare: {
    tokensPerStep: 1024,
    optimizer: { kind: "muon", learningRate: 1.2e-2 },
    // No plateau: in so short a run the cosine's slow end is worth more than steps at the peak.
    schedule: { warmupSteps: 20, cosineFrom: 0.2, cosineUntil: 1, lastFrom: 1, floor: 0.02, rampStart: 1 },
    data: { tokenizer: "bytes", fimRate: 0, splitRate: 0 },
    // Evaluation is part of the time that is raced for: the one at the end is enough.
    evaluate: { everySteps: 0 },
    checkpoint: { everySteps: 0 },
  },
};
