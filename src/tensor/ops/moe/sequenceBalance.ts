/**
 * The sequence-wise balance loss: against extreme imbalance inside one sequence, and nothing more.
 *
 * How often an expert is among a token's K best affinities (f) times the mean share of its affinity
 * (P), summed over experts: 1 when the load is even. f counts the choice WITHOUT bias and groups, as
 * eq. (18) writes it, and is a constant for the gradient, which flows through P.
 *
 * T tokens, E experts, K experts per token, S sequences.
 *
 * Source: DeepSeek-V3 report, section 2.1.2, eq. (17)-(20).
 */
import type { Param } from "../../hostScalar.ts";
import { defineKernel, type Floats, type Kernel } from "../../kernel.ts";
import { requireDtype, requireShape } from "../../shape.ts";
import type { Tensor } from "../../tensor.ts";
import { AFFINITY_EPSILON } from "./route.ts";
import { firstIndices, topIndices } from "./topIndices.ts";

export const sequenceBalanceKernel: Kernel = defineKernel({
  name: "sequenceBalance",
  operands: { affinity: "in", seqOffsets: "in i32", load: "out", loss: "out" },
  params: ["T", "E", "K", "S", "alpha"],
  reference({ affinity, seqOffsets, load, loss }, { E, K, S, alpha }) {
    const sequences = nonEmpty(seqOffsets, S);
    load.fill(0);
    let total = 0;
    for (const { sequence, start, end } of sequences) {
      const counts = load.subarray(sequence * E, (sequence + 1) * E);
      const shareSums = new Float64Array(E);
      for (let t = start; t < end; t++) {
        const s = affinity.subarray(t * E, (t + 1) * E);
        for (const e of topIndices(s, firstIndices(E), K)) counts[e] = counts[e]! + 1;
        const sum = sumOf(s);
        for (let e = 0; e < E; e++) shareSums[e] = shareSums[e]! + s[e]! / sum; //    eq. (19)
      }
      const length = end - start;
      for (let e = 0; e < E; e++) {
        const f = (E / (K * length)) * counts[e]!; //                                 eq. (18)
        total += (f * shareSums[e]!) / length; //                                     eq. (17), (20)
      }
    }
    loss[0] = sequences.length === 0 ? 0 : (alpha * total) / sequences.length;
  },
  flops: ({ T, E }) => 3 * T * E,
});

export const sequenceBalanceBackwardKernel: Kernel = defineKernel({
  name: "sequenceBalanceBackward",
  operands: { affinity: "in", seqOffsets: "in i32", load: "in", dAffinity: "out" },
  params: ["T", "E", "K", "S", "alpha"],
  reference({ affinity, seqOffsets, load, dAffinity }, { E, K, S, alpha }) {
    const sequences = nonEmpty(seqOffsets, S);
    dAffinity.fill(0);
    for (const { sequence, start, end } of sequences) {
      const length = end - start;
      const factor = alpha / sequences.length / length;
      const counts = load.subarray(sequence * E, (sequence + 1) * E);
      const f = Float64Array.from(counts, (count) => (E / (K * length)) * count);
      for (let t = start; t < end; t++) {
        const s = affinity.subarray(t * E, (t + 1) * E);
        const sum = sumOf(s);
        const mean = f.reduce((total, value, e) => total + value * (s[e]! / sum), 0);
        for (let e = 0; e < E; e++) dAffinity[t * E + e] = (factor / sum) * (f[e]! - mean);
      }
    }
  },
  flops: ({ T, E }) => 6 * T * E,
});

interface Sequence {
  readonly sequence: number;
  readonly start: number;
  readonly end: number;
}

function nonEmpty(seqOffsets: Int32Array, S: number): readonly Sequence[] {
  return firstIndices(S)
    .map((sequence) => ({ sequence, start: seqOffsets[sequence]!, end: seqOffsets[sequence + 1]! }))
    .filter(({ start, end }) => end > start);
}

function sumOf(s: Floats): number {
  let sum = AFFINITY_EPSILON;
  for (let e = 0; e < s.length; e++) sum += s[e]!;
  return sum;
}

export interface SequenceBalanceOptions {
  /** Experts per token. */
  readonly topK: number;
  /** Weight of the loss: 1e-4 in V3. */
  readonly alpha: Param;
}

/**
 * alpha * mean over sequences of sum f * P; empty sequences are left out of the mean, and tokens
 * outside every sequence do not count.
 *
 * The loss enters the total with weight 1: its gradient is that of `loss` itself, whatever number
 * arrives from behind. Scale with alpha instead; a micro-batch that is 1 / n of a batch takes alpha / n.
 *
 * Source: DeepSeek-V3 report, section 2.1.2, eq. (17)-(20).
 *
 * @param affinity    [T, E] f32, before the bias
 * @param seqOffsets  [S + 1] i32: sequence i is tokens seqOffsets[i] to seqOffsets[i + 1]
 * @returns           [1]
 */
export function sequenceBalanceLoss(
  affinity: Tensor,
  seqOffsets: Tensor,
  { topK: K, alpha }: SequenceBalanceOptions,
): Tensor {
  const { device } = affinity;
  requireDtype(affinity, ["f32", "f64"], "sequenceBalanceLoss: affinity");
  const [T, E, S] = [affinity.dim(0), affinity.dim(-1), seqOffsets.size - 1];
  requireShape(affinity, [T, E], "sequenceBalanceLoss: affinity");
  requireDtype(seqOffsets, ["i32"], "sequenceBalanceLoss: seqOffsets");
  const params = { T, E, K, S, alpha };
  const load = device.empty([S, E], affinity.dtype);
  const loss = device.empty([1], affinity.dtype);
  device.run(sequenceBalanceKernel, { affinity, seqOffsets, load, loss }, params);
  device.tape?.record({
    op: "sequenceBalanceLoss",
    inputs: [affinity],
    outputs: [loss],
    saved: [affinity, seqOffsets, load],
    inputGrad() {
      const dAffinity = device.empty([T, E], affinity.dtype);
      device.run(sequenceBalanceBackwardKernel, { affinity, seqOffsets, load, dAffinity }, params);
      return [dAffinity];
    },
  });
  return loss;
}

export const sequenceBalanceKernels: readonly Kernel[] = [
  sequenceBalanceKernel,
  sequenceBalanceBackwardKernel,
];
