/**
 * Which numbers have which format: the whole precision map on one screen.
 *
 *   part                                                     field        f32   bf16   fp8
 *   weights as the optimizer sees them, their gradients      master       f32   f32    f32
 *   projections of the layers: y = xW, dx = dyW, dW = dy x   fp8          f32   bf16   E4M3, table below
 *   head, MTP's eh_proj                                      compute      f32   bf16   bf16
 *   embedding                                                compute      f32   bf16   bf16
 *   what ops hand to one another, and its gradients;
 *     attention's scores and values; combine, both ways      activation   f32   bf16   bf16
 *   residual stream, to which every layer adds twice         residual     f32   f32    f32
 *   router: logits, affinities, weights; two that tie in
 *     bf16 would make the choice depend on rounding          router       f32   f32    f32
 *   kept of attention's output                               held         f32   bf16   E5M6
 *   kept of SwiGLU's input                                   held         f32   bf16   E4M3
 *   kept of SwiGLU's outputs, of norms' (but for the tiles
 *     that projections share), of every second sum of the
 *     residual stream                                        recompute    as it is     nothing
 *
 * Sums of products, norm statistics, softmax, log-sum-exp, losses and RoPE angles are f32 in all three. AdamW's moments
 * are f32, in fp8 bf16 (`optimizer.moments`).
 *
 * Source: DeepSeek-V3 report, section 3.3.
 */
import {
  type Dtype,
  type Fp8Format,
  type Fp8Recipe,
  reportRecipe,
  type TileFormat,
} from "../tensor/index.ts";

export type PrecisionName = "f32" | "bf16" | "fp8" | "f64";

export interface Precision {
  readonly name: PrecisionName;
  readonly master: Dtype;
  readonly compute: Dtype;
  readonly activation: Dtype;
  readonly residual: Dtype;
  readonly router: Dtype;
  /** How the layers' projections are multiplied; null: in the compute dtype. */
  readonly fp8: Readonly<Record<ProjectionPart, Fp8Format>> | null;
  /** What is held for the way back in another format than it had; null: in the same. */
  readonly held: { readonly attentionOutput: TileFormat | null; readonly swigluInput: TileFormat | null };
  /** When norms, SwiGLU and every second sum of the residual stream are done again on the way back instead of held. */
  readonly recompute: "on request" | "always";
}

const asItIs = {
  fp8: null,
  held: { attentionOutput: null, swigluInput: null },
  recompute: "on request",
} as const;

function same(dtype: "f32" | "f64"): Precision {
  const dtypes = { master: dtype, compute: dtype, activation: dtype, residual: dtype, router: dtype };
  return { name: dtype, ...dtypes, ...asItIs };
}

const bf16: Precision = { ...same("f32"), name: "bf16", compute: "bf16", activation: "bf16" };

/** Projections that are quantised alike. */
export type ProjectionPart =
  | "attention"
  | "attentionOutput"
  | "feedForward"
  | "feedForwardOutput"
  | "experts"
  | "expertsOutput";

/** Scales are any f32 or powers of two: the latter where codes travel, or are cut anew the other way. */
type Scales = "f32" | "2^n";

/**
 *                      scales of x, of dy    dW is made of    projections
 *   attention          f32         f32       x's tiles        q, q_a, q_b, kv_a, kv_b
 *   attentionOutput    2^n         f32       x in E5M6        o: attention's own way back needs x too
 *   feedForward        f32         f32       x's tiles        gate, up: dense layers, shared experts
 *   feedForwardOutput  f32         f32       x made again     down: dense layers, shared experts
 *   experts            2^n         f32       x's tiles        gate, up: x is dispatched as tiles
 *   expertsOutput      f32         2^n       x made again     down: dy is dispatched as tiles
 */
const fp8Parts: Readonly<Record<ProjectionPart, readonly [Scales, Scales, Fp8Format["saves"]]>> = {
  attention: ["f32", "f32", "tiles"],
  attentionOutput: ["2^n", "f32", "input"],
  feedForward: ["f32", "f32", "tiles"],
  feedForwardOutput: ["f32", "f32", "input"],
  experts: ["2^n", "f32", "tiles"],
  expertsOutput: ["f32", "2^n", "input"],
};

/** A tile of activations below this is noise: its scale does not blow it up. Source: DeepSeek's released kernels. */
const LEAST_ACTIVATION = 1e-4;

/** The fp8 column for a recipe. */
export function fp8Precision(recipe: Fp8Recipe): Precision {
  const { scaling, promotion, accumulatorBits } = recipe;
  const isPower = (scales: Scales): boolean =>
    recipe.powerOfTwo === "named" ? scales === "2^n" : recipe.powerOfTwo === "all";
  const activation = (scales: Scales, dtype: TileFormat["dtype"] = "f8e4m3"): TileFormat => {
    return { dtype, powerOfTwo: isPower(scales), floor: LEAST_ACTIVATION, width: 1, scaling };
  };
  const gradient = (scales: Scales): TileFormat => {
    const width = recipe.gradientTile === "1x128" ? 1 : 128;
    return { dtype: "f8e4m3", powerOfTwo: isPower(scales), floor: 0, width, scaling };
  };
  const format = (part: ProjectionPart): Fp8Format => {
    const [x, dy, saves] = fp8Parts[part];
    return {
      input: activation(x),
      gradient: gradient(dy),
      weight: { powerOfTwo: isPower("f32"), scaling },
      saves,
      promotion,
      accumulatorBits,
    };
  };
  return {
    ...bf16,
    name: "fp8",
    fp8: {
      attention: format("attention"),
      attentionOutput: format("attentionOutput"),
      feedForward: format("feedForward"),
      feedForwardOutput: format("feedForwardOutput"),
      experts: format("experts"),
      expertsOutput: format("expertsOutput"),
    },
    held: { attentionOutput: activation("2^n", "e5m6"), swigluInput: activation("f32") },
    recompute: "always",
  };
}

/** f64 is for oracles and gradient checks, on the reference backend only. */
export const precisions: Readonly<Record<PrecisionName, Precision>> = {
  f32: same("f32"),
  bf16,
  fp8: fp8Precision(reportRecipe),
  f64: same("f64"),
};
