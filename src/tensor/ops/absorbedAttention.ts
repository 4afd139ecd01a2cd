/**
 * Attention over cached latents: the absorbed form, for decoding, and how the cache is filled.
 *
 * Keys and values are linear in the latent, so their projections can change sides: W_k goes into the query,
 * W_v behind the weighted sum of latents. A cached token is then C + R numbers for all heads together. It
 * equals ./attention.ts over the unfolded cache up to rounding.
 *
 * M new tokens, H heads, N + R channels of queries, V of values, C of latents.
 *
 * Source: DeepSeek-V3 report, section 2.1.1 (the cached vectors of eq. (1) and (3)); DeepSeek-V2 report, section 2.1.2
 * (absorbing the projections).
 */
import { invariant, ShapeError } from "../../base/index.ts";
import type { Dtype } from "../dtype.ts";
import { type Param, paramValue } from "../hostScalar.ts";
import { defineKernel, type Kernel } from "../kernel.ts";
import { requireShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { type AttentionDims, addScaled, dot, logSumExp } from "./attention.ts";
import { rounding } from "./matmul.ts";

export const absorbedAttentionKernel: Kernel = defineKernel({
  name: "absorbedAttention",
  operands: { q: "in", kvB: "in", cacheLatent: "in", cacheRope: "in", o: "out" },
  params: ["M", "H", "N", "R", "V", "C", "past", "scale", "round"],
  reference({ q, kvB, cacheLatent, cacheRope, o }, { M, H, N, R, V, C, past, scale, round }) {
    const weights = Float64Array.from(kvB, rounding(round === 1 ? "bf16" : "f32"));
    const weightRow = (row: number): Float64Array => weights.subarray(row * C, (row + 1) * C);
    for (let i = 0; i < M; i++) {
      const seen = Array.from({ length: past + i + 1 }, (_, j) => ({
        latent: cacheLatent.subarray(j * C, (j + 1) * C),
        kRope: cacheRope.subarray(j * R, (j + 1) * R),
      }));
      for (let h = 0; h < H; h++) {
        const query = q.subarray((i * H + h) * (N + R), (i * H + h + 1) * (N + R));
        const absorbed = new Float64Array(C); //                       W_k^T q
        for (let n = 0; n < N; n++) addScaled(absorbed, query[n]!, weightRow(h * (N + V) + n));
        const rotated = query.subarray(N);
        const scores = Float64Array.from(
          seen,
          ({ latent, kRope }) => (dot(absorbed, latent) + dot(rotated, kRope)) * scale,
        );
        const logSum = logSumExp(scores);
        const mixed = new Float64Array(C); //                          sum of p latent
        for (const [j, { latent }] of seen.entries()) addScaled(mixed, Math.exp(scores[j]! - logSum), latent);
        for (let v = 0; v < V; v++) o[(i * H + h) * V + v] = dot(weightRow(h * (N + V) + N + v), mixed);
      }
    }
  },
  flops: ({ M, H, N, R, V, C, past }) => 2 * M * H * ((N + V) * C + (past + (M + 1) / 2) * (2 * C + R)),
});

export const cacheAppendKernel: Kernel = defineKernel({
  name: "cacheAppend",
  operands: { latent: "in", kRope: "in", cacheLatent: "inout", cacheRope: "inout" },
  params: ["M", "C", "R", "at"],
  reference({ latent, kRope, cacheLatent, cacheRope }, { C, R, at }) {
    cacheLatent.set(latent, at * C);
    cacheRope.set(kRope, at * R);
  },
});

export interface AbsorbedDims extends AttentionDims {
  /** Channels of a cached latent. */
  readonly latent: number;
}

/** A cache of one layer. */
export interface CachedTokens {
  /** [capacity, C], normed */
  readonly latent: Tensor;
  /** [capacity, R], rotated */
  readonly kRope: Tensor;
  /** Tokens before the ones that are asked now; those have been appended behind them. */
  readonly length: Param;
}

/**
 * What each new token takes from the cached ones before it and from itself. No gradient flows: decoding has no tape.
 *
 * Source: DeepSeek-V2 report, section 2.1.2.
 *
 * @param q      [M, H * (N + R)], per head N plain channels, then R rotated ones
 * @param kvB    [H * (N + V), C], the projection that unfolds latents, as checkpoints store it
 * @param past   the layer's cache; token i of q sees its first past.length + i + 1 rows
 * @param round  whether kvB is rounded to bf16 first, as its packed copy is where matrices run in bf16
 * @param dtype  of the result
 * @returns      [M, H * V]
 * @throws       {ShapeError} if an operand does not fit dims, or the cache is too short
 */
export function absorbedAttention(
  q: Tensor,
  kvB: Tensor,
  past: CachedTokens,
  dims: AbsorbedDims,
  softmaxScale: number,
  round: boolean,
  dtype: Dtype,
): Tensor {
  const { device } = q;
  const { heads: H, nope: N, rope: R, value: V, latent: C } = dims;
  const M = q.dim(0);
  invariant(device.tape === null, "absorbedAttention hands back no gradient and is called on a tape");
  requireShape(q, [M, H * (N + R)], "absorbedAttention: q");
  requireShape(kvB, [H * (N + V), C], "absorbedAttention: kvB");
  requireRoom(past.latent, past.kRope, [C, R], paramValue(past.length) + M, "absorbedAttention");
  const o = device.empty([M, H * V], dtype);
  const params = { M, H, N, R, V, C, past: past.length, scale: softmaxScale, round: round ? 1 : 0 };
  const operands = { q, kvB, cacheLatent: past.latent, cacheRope: past.kRope, o };
  device.run(absorbedAttentionKernel, operands, params);
  return o;
}

/**
 * Writes new tokens into a layer's cache, at row `at` and behind, in the cache's dtype.
 *
 * @param latent       [M, C], normed
 * @param kRope        [M, R], rotated
 * @param cacheLatent  [capacity, C]
 * @param cacheRope    [capacity, R]
 * @throws             {ShapeError} if widths differ, or rows at to at + M do not fit the capacity
 */
export function cacheAppend(
  latent: Tensor,
  kRope: Tensor,
  cacheLatent: Tensor,
  cacheRope: Tensor,
  at: Param,
): void {
  const { device } = latent;
  const [M, C, R] = [latent.dim(0), latent.dim(-1), kRope.dim(-1)];
  invariant(device.tape === null, "cacheAppend hands back no gradient and is called on a tape");
  requireShape(latent, [M, C], "cacheAppend: latent");
  requireShape(kRope, [M, R], "cacheAppend: kRope");
  requireRoom(cacheLatent, cacheRope, [C, R], paramValue(at) + M, "cacheAppend");
  device.run(cacheAppendKernel, { latent, kRope, cacheLatent, cacheRope }, { M, C, R, at });
}

function requireRoom(
  latent: Tensor,
  kRope: Tensor,
  [C, R]: readonly [number, number],
  wanted: number,
  op: string,
): void {
  const capacity = latent.dim(0);
  requireShape(latent, [capacity, C], `${op}: the cache's latents`);
  requireShape(kRope, [capacity, R], `${op}: the cache's rotary keys`);
  if (wanted <= capacity) return;
  throw new ShapeError(`${op}: ${wanted} tokens do not fit a cache of ${capacity}`, {
    why: "a cache is made for a number of tokens and does not grow",
    fix: `make the cache for at least ${wanted} tokens`,
    fields: { op, wanted, capacity },
  });
}

export const absorbedAttentionKernels: readonly Kernel[] = [absorbedAttentionKernel, cacheAppendKernel];
