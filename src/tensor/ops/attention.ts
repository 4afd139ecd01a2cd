/**
 * Causal attention of every head over packed sequences: the expanded form, for training and prompts.
 *
 * Per head a query has N plain channels and R rotated ones, a key N plain channels of its own and the one
 * rotated key of its token that all heads share. Keys are never concatenated: the two parts of a score are
 * summed. The log-sum-exp of each row is kept, so that the way back computes probabilities anew
 * instead of storing them.
 *
 * T tokens, H heads, N + R channels of queries and keys, V channels of values, S sequences.
 *
 * Source: DeepSeek-V3 report, section 2.1.1, eq. (4), (9)-(10).
 */

import type { Dtype } from "../dtype.ts";
import { defineKernel, type Floats, type Kernel } from "../kernel.ts";
import { requireDtype, requireShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { statisticsDtype } from "./norm.ts";

const PARAMS = ["T", "H", "N", "R", "V", "S", "scale"] as const;
type Sizes = Readonly<Record<(typeof PARAMS)[number], number>>;

interface Keys {
  /** [T, H * (N + R)] */
  readonly q: Floats;
  /** [T, H * (N + V)]: per head the key's plain channels, then the value */
  readonly kv: Floats;
  /** [T, R] */
  readonly kRope: Floats;
}

export const attentionKernel: Kernel = defineKernel({
  name: "attention",
  operands: { q: "in", kv: "in", kRope: "in", seqOffsets: "in i32", o: "out", lse: "out" },
  params: PARAMS,
  reference({ q, kv, kRope, seqOffsets, o, lse }, sizes) {
    const { T, H, V } = sizes;
    for (const { start, t, h } of queriesOf(seqOffsets, sizes)) {
      const scores = scoresOf({ q, kv, kRope }, start, t, h, sizes);
      const logSum = logSumExp(scores);
      lse[h * T + t] = logSum;
      const output = o.subarray((t * H + h) * V, (t * H + h + 1) * V);
      output.fill(0);
      for (let j = start; j <= t; j++) {
        addScaled(output, Math.exp(scores[j - start]! - logSum), valueRow(kv, j, h, sizes));
      }
    }
  },
  flops: (sizes) => 2 * pairsOf(sizes) * (sizes.N + sizes.R + sizes.V),
});

/**
 * Per query, with p = exp(s - lse):
 *
 *   dv_j += p_j do    ds_j = scale p_j (do . v_j - do . o)    dq += ds_j k_j    dk_j += ds_j q
 */
export const attentionBackwardKernel: Kernel = defineKernel({
  name: "attentionBackward",
  operands: {
    do: "in",
    q: "in",
    kv: "in",
    kRope: "in",
    o: "in",
    lse: "in",
    seqOffsets: "in i32",
    dq: "out",
    dkv: "out",
    dkRope: "out",
    workspace: "out",
  },
  params: PARAMS,
  reference({ do: dOut, q, kv, kRope, o, lse, seqOffsets, dq, dkv, dkRope }, sizes) {
    const { T, H, N, R, V, scale } = sizes;
    for (const gradient of [dq, dkv, dkRope]) gradient.fill(0);
    for (const { start, t, h } of queriesOf(seqOffsets, sizes)) {
      const scores = scoresOf({ q, kv, kRope }, start, t, h, sizes);
      const query = q.subarray((t * H + h) * (N + R), (t * H + h + 1) * (N + R));
      const dQuery = dq.subarray((t * H + h) * (N + R), (t * H + h + 1) * (N + R));
      const dOutput = dOut.subarray((t * H + h) * V, (t * H + h + 1) * V);
      const mean = dot(dOutput, o.subarray((t * H + h) * V, (t * H + h + 1) * V));
      for (let j = start; j <= t; j++) {
        const p = Math.exp(scores[j - start]! - lse[h * T + t]!);
        const ds = scale * p * (dot(dOutput, valueRow(kv, j, h, sizes)) - mean);
        addScaled(valueRow(dkv, j, h, sizes), p, dOutput);
        addScaled(dQuery.subarray(0, N), ds, keyRow(kv, j, h, sizes));
        addScaled(dQuery.subarray(N), ds, kRope.subarray(j * R, (j + 1) * R));
        addScaled(keyRow(dkv, j, h, sizes), ds, query.subarray(0, N));
        addScaled(dkRope.subarray(j * R, (j + 1) * R), ds, query.subarray(N));
      }
    }
  },
  flops: (sizes) => 2 * pairsOf(sizes) * (3 * (sizes.N + sizes.R) + 2 * sizes.V),
});

/** Every (query, head), with the first token that it may see. */
function* queriesOf(
  seqOffsets: Int32Array,
  { T, H, S }: Sizes,
): Generator<{ readonly start: number; readonly t: number; readonly h: number }> {
  const offsets = seqOffsets.subarray(0, S + 1);
  const isRising = offsets.every((offset, s) => s === 0 || offset >= offsets[s - 1]!);
  if (offsets[0] !== 0 || offsets[S] !== T || !isRising) {
    throw new RangeError(`seqOffsets: [${offsets.join(", ")}] does not rise from 0 to ${T}`);
  }
  for (let s = 0; s < S; s++) {
    for (let h = 0; h < H; h++) {
      for (let t = offsets[s]!; t < offsets[s + 1]!; t++) yield { start: offsets[s]!, t, h };
    }
  }
}

/** Scaled scores of query t of head h against tokens `start` to t. */
function scoresOf({ q, kv, kRope }: Keys, start: number, t: number, h: number, sizes: Sizes): Float64Array {
  const { H, N, R, scale } = sizes;
  const query = q.subarray((t * H + h) * (N + R), (t * H + h + 1) * (N + R));
  return Float64Array.from({ length: t - start + 1 }, (_, i) => {
    const j = start + i;
    const nope = dot(query.subarray(0, N), keyRow(kv, j, h, sizes)); //               eq. (9)
    const rope = dot(query.subarray(N), kRope.subarray(j * R, (j + 1) * R));
    return (nope + rope) * scale;
  });
}

function keyRow(kv: Floats, j: number, h: number, { H, N, V }: Sizes): Floats {
  return kv.subarray((j * H + h) * (N + V), (j * H + h) * (N + V) + N);
}

function valueRow(kv: Floats, j: number, h: number, { H, N, V }: Sizes): Floats {
  return kv.subarray((j * H + h) * (N + V) + N, (j * H + h + 1) * (N + V));
}

export function dot(a: Floats, b: Floats): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

/** y += alpha x. */
export function addScaled(y: Floats, alpha: number, x: Floats): void {
  for (let i = 0; i < y.length; i++) y[i] = y[i]! + alpha * x[i]!;
}

export function logSumExp(scores: Floats): number {
  let max = Number.NEGATIVE_INFINITY;
  for (const score of scores) max = Math.max(max, score);
  let sum = 0;
  for (const score of scores) sum += Math.exp(score - max);
  return max + Math.log(sum);
}

/** How often a query of a head meets a key, if the sequences are of one length. */
function pairsOf({ T, H, S }: Sizes): number {
  return (H * T * (T / Math.max(1, S) + 1)) / 2;
}

export interface AttentionDims {
  readonly heads: number;
  /** Channels of queries and keys without positions. */
  readonly nope: number;
  /** Channels of queries and keys that carry the position. */
  readonly rope: number;
  /** Channels of values and outputs. */
  readonly value: number;
}

/**
 * o_t = sum over j <= t of softmax_j(q_t . k_j * softmaxScale) v_j, in each head and sequence by itself.
 *
 * Source: DeepSeek-V3 report, section 2.1.1, eq. (9)-(10).
 *
 * @param q           [T, H * (N + R)], per head N plain channels, then R rotated ones
 * @param kv          [T, H * (N + V)], per head N channels of the key, then V of the value
 * @param kRope       [T, R], rotated, one for all heads
 * @param seqOffsets  [S + 1] i32 from 0 to T: sequence s is tokens seqOffsets[s] to seqOffsets[s + 1]; empty ones are legal
 * @param dtype       of the result
 * @returns           [T, H * V]
 * @throws            {ShapeError} if q, kv and kRope do not fit dims
 */
export function attention(
  q: Tensor,
  kv: Tensor,
  kRope: Tensor,
  seqOffsets: Tensor,
  dims: AttentionDims,
  softmaxScale: number,
  dtype: Dtype,
): Tensor {
  const { device } = q;
  const { heads: H, nope: N, rope: R, value: V } = dims;
  const [T, S] = [q.dim(0), seqOffsets.size - 1];
  requireShape(q, [T, H * (N + R)], "attention: q");
  requireShape(kv, [T, H * (N + V)], "attention: kv");
  requireShape(kRope, [T, R], "attention: kRope");
  requireShape(seqOffsets, [S + 1], "attention: seqOffsets");
  requireDtype(seqOffsets, ["i32"], "attention: seqOffsets");
  const params = { T, H, N, R, V, S, scale: softmaxScale };
  const o = device.empty([T, H * V], dtype);
  const lse = device.empty([H, T], statisticsDtype(q));
  device.run(attentionKernel, { q, kv, kRope, seqOffsets, o, lse }, params);
  device.tape?.record({
    op: "attention",
    inputs: [q, kv, kRope],
    outputs: [o],
    saved: [q, kv, kRope, o, lse, seqOffsets],
    inputGrad(dOut) {
      if (dOut === null) return [null, null, null];
      const [dq, dkv, dkRope] = [q, kv, kRope].map((x) => device.empty(x.shape, x.dtype));
      // Each head's share of the shared key's gradient, and rowsum(do * o).
      using workspace = device.temporary([H * T * R + H * T], statisticsDtype(q));
      const given = { do: dOut, q, kv, kRope, o, lse, seqOffsets };
      const made = { dq: dq!, dkv: dkv!, dkRope: dkRope! };
      device.run(attentionBackwardKernel, { ...given, ...made, workspace }, params);
      return [made.dq, made.dkv, made.dkRope];
    },
  });
  return o;
}

export const attentionKernels: readonly Kernel[] = [attentionKernel, attentionBackwardKernel];
