/** What a TrainConfig must obey, and the defaults that follow from a preset and a number of steps. */
import { z } from "zod";
import { ConfigError, parseConfig } from "../base/index.ts";
import { type ModelConfig, modelConfigSchema, presetConfig } from "../model/index.ts";
import { type Fp8Recipe, reportRecipe } from "../tensor/index.ts";
import type { TrainConfig } from "./config.ts";
import { recipes } from "./recipes.ts";

/** Tokens; four times the report's largest batch. */
const LARGEST_STEP = 2 ** 28;

const share: z.ZodNumber = z.number().min(0).max(1);
const count: z.ZodNumber = z.int().positive();
const countOrZero: z.ZodNumber = z.int().nonnegative();

const rule = (path: string[], error: string, fix: string): z.core.$ZodCustomParams & { path: string[] } => ({
  path,
  error,
  params: { fix },
});

const fp8Schema: z.ZodType<Fp8Recipe> = z
  .object({
    scaling: z.enum(["tile", "tensor"]),
    gradientTile: z.enum(["1x128", "128x128"]),
    promotion: z.literal([0, 16, 32, 64, 128]),
    accumulatorBits: z.literal([0, 14]),
    powerOfTwo: z.enum(["named", "all", "none"]),
  })
  .refine(
    (c) => c.promotion > 0 || c.accumulatorBits === 14,
    rule(
      ["promotion"],
      "sums without promotion are made by the 14-bit emulation alone",
      "set fp8.accumulatorBits=14 too, or fp8.promotion=16, 32, 64 or 128",
    ),
  );

function isReports(recipe: Fp8Recipe): boolean {
  const keys = Object.keys(reportRecipe) as (keyof Fp8Recipe)[];
  return keys.every((key) => recipe[key] === reportRecipe[key]);
}

export const trainConfigSchema: z.ZodType<TrainConfig> = z
  .object({
    preset: z.string(),
    model: modelConfigSchema,
    precision: z.enum(["f32", "bf16", "fp8"]),
    // Runs from before FP8 have no such key.
    fp8: fp8Schema.default(reportRecipe),
    seed: countOrZero,
    rowLength: count,
    steps: count,
    batchRows: count,
    microBatchRows: count,
    gradientShards: count,
    recompute: z.enum(["none", "selective"]).default("none"),
    optimizer: z.object({
      kind: z.enum(["adamw", "muon"]).default("adamw"),
      learningRate: z.number().positive(),
      beta1: share,
      beta2: share,
      eps: z.number().positive(),
      weightDecay: z.number().nonnegative(),
      clipNorm: z.number().positive(),
      // Runs from before Muon have no such key.
      momentum: share.default(0.95),
      moments: z.enum(["f32", "bf16"]),
      emaDecay: share.nullable(),
    }),
    schedule: z.object({
      warmupSteps: countOrZero,
      cosineFrom: share,
      cosineUntil: share,
      lastFrom: share,
      floor: share,
      last: share,
      rampStart: z.number().positive().max(1),
      rampUntil: share,
    }),
    balance: z.object({
      gamma: z.number().nonnegative(),
      gammaUntil: share,
      alpha: z.number().nonnegative(),
    }),
    mtp: z.object({
      weight: z.number().nonnegative(),
      finalWeight: z.number().nonnegative(),
      switchAt: share,
    }),
    data: z.object({
      paths: z.array(z.string()),
      tokenizer: z.string().nullable(),
      validationEvery: countOrZero,
      fimRate: share,
      splitRate: share,
      maskDocuments: z.boolean(),
    }),
    evaluate: z.object({ everySteps: countOrZero, rows: count, lastRows: count.nullable().default(null) }),
    sample: z.object({ everySteps: countOrZero, prompts: z.array(z.string()), maxTokens: count }),
    checkpoint: z.object({
      everySteps: countOrZero,
      keepNewest: count,
      keepEvery: countOrZero,
      keepBest: z.boolean(),
    }),
  })
  .refine(
    (c) => c.precision === "fp8" || isReports(c.fp8),
    rule(
      ["fp8"],
      "these settings say how FP8 multiplies, and have no effect in another precision",
      "set precision=fp8 too, or keep the report's values (fp8.promotion=128, fp8.scaling=tile, ...)",
    ),
  )
  .refine(
    (c) => c.rowLength <= c.model.maxPositionEmbeddings,
    rule(
      ["rowLength"],
      "a row cannot be longer than the model's context",
      "raise model.maxPositionEmbeddings or lower rowLength",
    ),
  )
  .refine(
    (c) => c.batchRows * c.rowLength <= LARGEST_STEP,
    rule(
      ["batchRows"],
      `a step takes at most ${LARGEST_STEP} tokens: their ids alone fill a gigabyte`,
      "lower batchRows or rowLength",
    ),
  )
  .refine(
    (c) => c.batchRows % c.microBatchRows === 0,
    rule(["microBatchRows"], "a batch is cut into equal micro-batches", "choose a divisor of batchRows"),
  )
  .refine(
    (c) => (c.batchRows / c.microBatchRows) % c.gradientShards === 0,
    rule(
      ["gradientShards"],
      "micro-batches form equal blocks, one per shard",
      "choose a divisor of batchRows / microBatchRows",
    ),
  )
  .refine(
    (c) => c.gradientShards === 1 || c.schedule.rampStart === 1,
    rule(["gradientShards"], "under a batch ramp the blocks would change", "set schedule.rampStart=1"),
  )
  .refine(
    (c) => c.schedule.cosineFrom <= c.schedule.cosineUntil && c.schedule.cosineUntil <= c.schedule.lastFrom,
    rule(
      ["schedule", "cosineUntil"],
      "the segments of the learning rate follow one another",
      "order cosineFrom <= cosineUntil <= lastFrom",
    ),
  ) as z.ZodType<TrainConfig>;

export function parseTrainConfig(value: unknown, where: string): TrainConfig {
  return parseConfig(trainConfigSchema, value, where);
}

/** The complete config of a run with a preset: the report's recipe, its points in time as shares of the budget. */
export function defaultTrainConfig(
  preset: string,
  steps: number,
  model: ModelConfig = presetConfig(preset),
  precision: TrainConfig["precision"] = "bf16",
): TrainConfig {
  const rowLength = model.maxPositionEmbeddings;
  const recipe = Object.hasOwn(recipes, preset) ? recipes[preset] : undefined;
  if (recipe === undefined) {
    throw new ConfigError(`the preset ${preset} is for planning and loading, not for training here`, {
      why: "its weights alone do not fit the memory of one machine",
      fix: `use --preset ${Object.keys(recipes).slice(1).join(", ")}`,
      fields: { preset },
    });
  }
  const batchRows = Math.max(1, Math.round(recipe.tokensPerStep / rowLength));
  return parseTrainConfig(
    {
      preset,
      model,
      precision,
      fp8: reportRecipe,
      seed: 0,
      rowLength,
      steps,
      batchRows,
      microBatchRows: batchRows,
      gradientShards: 1,
      recompute: "none",
      optimizer: {
        kind: "adamw",
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weightDecay: 0.1,
        clipNorm: 1,
        momentum: 0.95,
        moments: precision === "fp8" ? "bf16" : "f32",
        emaDecay: null,
        ...recipe.optimizer,
      },
      schedule: {
        warmupSteps: Math.min(steps, Math.max(20, Math.round(0.03 * steps))),
        cosineFrom: 10 / 14.8,
        cosineUntil: 14.3 / 14.8,
        lastFrom: 14.633 / 14.8,
        floor: 0.1,
        last: 7.3 / 220,
        rampStart: batchRows < 16 ? 1 : 3072 / 15360,
        rampUntil: 469 / 14800,
        ...recipe.schedule,
      },
      // A bias moves by at most gamma a step: a short run needs larger steps to cross the range of a sigmoid.
      balance: { gamma: Math.min(Math.max(8 / steps, 0.001), 0.01), gammaUntil: 14.3 / 14.8, alpha: 1e-4 },
      mtp: { weight: 0.3, finalWeight: 0.1, switchAt: 10 / 14.8, ...recipe.mtp },
      data: {
        paths: [],
        tokenizer: null,
        validationEvery: 20,
        fimRate: 0.1,
        splitRate: 0.1,
        maskDocuments: false,
        ...recipe.data,
      },
      evaluate: { everySteps: 100, rows: 64, lastRows: null, ...recipe.evaluate },
      sample: { everySteps: 100, prompts: [], maxTokens: 64 },
      checkpoint: { everySteps: 200, keepNewest: 2, keepEvery: 0, keepBest: true, ...recipe.checkpoint },
    },
    `preset ${preset}`,
  );
}
