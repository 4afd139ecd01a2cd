/**
 * The router: which K of E experts each token visits, and how much each answer counts.
 *
 * The bias steers the choice and never the weights, so that balancing adds no gradient. The choice
 * itself has no gradient either: it flows through the affinities of the chosen experts alone.
 *
 * T tokens, E experts, K experts per token, G groups of neighbouring experts.
 *
 * Source: DeepSeek-V3 report, section 2.1.2, eq. (13)-(16); the sum over two experts per group and the
 * 1e-20 are those of the released code.
 */
import { ShapeError } from "../../../base/index.ts";
import { defineKernel, type Kernel } from "../../kernel.ts";
import { requireDtype, requireShape } from "../../shape.ts";
import type { Tensor } from "../../tensor.ts";
import { fill } from "../elementwise.ts";
import { firstIndices, topIndices } from "./topIndices.ts";

/** Added to sums of affinities: where they all underflow, shares are 0 instead of 0 / 0. */
export const AFFINITY_EPSILON = 1e-20;

export const routerKernel: Kernel = defineKernel({
  name: "router",
  operands: { logits: "in", bias: "in", affinity: "out", expertIds: "out i32", weights: "out" },
  params: ["T", "E", "K", "G", "topkGroup", "scale", "normalise"],
  reference({ logits, bias, affinity, expertIds, weights }, params) {
    const { T, E, K, G, topkGroup, scale, normalise } = params;
    for (let t = 0; t < T; t++) {
      const s = affinity.subarray(t * E, (t + 1) * E);
      for (let e = 0; e < E; e++) s[e] = 1 / (1 + Math.exp(-logits[t * E + e]!)); //   eq. (15)
      const selection = Float64Array.from(s, (value, e) => value + bias[e]!); //       eq. (16)
      const chosen = topIndices(selection, openExperts(selection, G, topkGroup), K);
      const sum = chosen.reduce((total, e) => total + s[e]!, 0);
      const factor = normalise === 1 ? scale / (sum + AFFINITY_EPSILON) : scale;
      chosen.forEach((e, k) => {
        expertIds[t * K + k] = e;
        weights[t * K + k] = s[e]! * factor; //                                        eq. (13)
      });
    }
  },
  flops: ({ T, E }) => 4 * T * E,
});

/**
 * The experts of the topkGroup best groups. A group is as good as its two best experts. (The report
 * says its K / topkGroup best; the released code fixes two, and at V3's 8 / 4 they agree.)
 */
function openExperts(selection: Float64Array, G: number, topkGroup: number): readonly number[] {
  const size = selection.length / G;
  const experts = firstIndices(selection.length);
  if (G === 1) return experts;
  const scores = firstIndices(G).map((g) => {
    const members = experts.slice(g * size, (g + 1) * size);
    const [first, second] = topIndices(selection, members, 2);
    return selection[first!]! + selection[second!]!;
  });
  const open = new Set(topIndices(scores, firstIndices(G), topkGroup));
  // Left out, not lowered to zero: with negative biases a zero would beat the experts that are open.
  return experts.filter((e) => open.has(Math.floor(e / size)));
}

export const routerBackwardKernel: Kernel = defineKernel({
  name: "routerBackward",
  operands: { dWeights: "in", dAffinity: "in?", affinity: "in", expertIds: "in i32", dlogits: "out" },
  params: ["T", "E", "K", "scale", "normalise"],
  reference({ dWeights, dAffinity, affinity, expertIds, dlogits }, { T, E, K, scale, normalise }) {
    for (let t = 0; t < T; t++) {
      const s = affinity.subarray(t * E, (t + 1) * E);
      const ds = Float64Array.from({ length: E }, (_, e) => dAffinity?.[t * E + e] ?? 0);
      const slots = firstIndices(K).map((k) => ({ e: expertIds[t * K + k]!, dw: dWeights[t * K + k]! }));
      // w_k = scale * p_k with p_k = s_k / sum: each chosen affinity also lowers the share of the others.
      const sum = slots.reduce((total, { e }) => total + s[e]!, AFFINITY_EPSILON);
      const shared = slots.reduce((total, { e, dw }) => total + dw * (s[e]! / sum), 0);
      for (const { e, dw } of slots) {
        ds[e] = ds[e]! + (normalise === 1 ? (scale / sum) * (dw - shared) : scale * dw);
      }
      for (let e = 0; e < E; e++) dlogits[t * E + e] = ds[e]! * (s[e]! * (1 - s[e]!));
    }
  },
  flops: ({ T, E, K }) => 3 * T * E + 6 * T * K,
});

export interface RouteOptions {
  /** Experts per token. */
  readonly topK: number;
  /** Groups of neighbouring experts; 1 switches the limit off. */
  readonly groups: number;
  /** Groups that one token may use. */
  readonly topkGroup: number;
  /** What a token's weights sum to, or their factor if they are not normalised. */
  readonly scale: number;
  /** Whether a token's weights are divided by their sum. */
  readonly normalise: boolean;
}

export interface Route {
  /** [T, E] sigmoid of the logits; differentiable */
  readonly affinity: Tensor;
  /** [T, K] i32, ascending within a token */
  readonly expertIds: Tensor;
  /** [T, K] in the order of expertIds; differentiable */
  readonly weights: Tensor;
}

/**
 * Sends every token to its topK experts, all within topkGroup groups.
 *
 * NaN logits rank above all others: the token stays with legal experts, its weights become NaN and so
 * does the loss. Nothing else is reported here.
 *
 * Source: DeepSeek-V3 report, section 2.1.2, eq. (13)-(16).
 *
 * @param logits  [T, E] f32; f32 because two affinities that tie in bf16 would be told apart by index
 * @param bias    [E] f32, a buffer: it gets no gradient
 * @throws        {ShapeError} if E, groups, topkGroup and topK do not fit together
 */
export function route(logits: Tensor, bias: Tensor, options: RouteOptions): Route {
  const { topK: K, groups: G, topkGroup, scale } = options;
  const { device } = logits;
  requireDtype(logits, ["f32", "f64"], "route: logits");
  const [T, E] = [logits.dim(0), logits.dim(-1)];
  requireShape(logits, [T, E], "route: logits");
  requireShape(bias, [E], "route: bias");
  requireRouting(E, options);
  const normalise = options.normalise ? 1 : 0;
  const affinity = device.empty([T, E], logits.dtype);
  const expertIds = device.empty([T, K], "i32");
  const weights = device.empty([T, K], logits.dtype);
  const operands = { logits, bias, affinity, expertIds, weights };
  device.run(routerKernel, operands, { T, E, K, G, topkGroup, scale, normalise });
  device.tape?.record({
    op: "route",
    inputs: [logits],
    outputs: [affinity, weights],
    saved: [affinity, expertIds],
    inputGrad(dAffinity, fromWeights) {
      const dWeights = fromWeights ?? device.empty([T, K], logits.dtype);
      if (fromWeights === null) fill(dWeights, 0);
      const dlogits = device.empty([T, E], logits.dtype);
      const back = { dWeights, dAffinity, affinity, expertIds, dlogits };
      device.run(routerBackwardKernel, back, { T, E, K, scale, normalise });
      return [dlogits];
    },
  });
  return { affinity, expertIds, weights };
}

function requireRouting(E: number, { topK, groups, topkGroup }: RouteOptions): void {
  const size = E / groups;
  if (groups < 1 || !Number.isInteger(size) || (groups > 1 && size < 2)) {
    throw new ShapeError(`route: ${E} experts cannot be cut into ${groups} groups`, {
      why: "groups are of equal size, and a group's score is the sum of its two best experts",
      fix: "choose nGroup so that nRoutedExperts / nGroup is a whole number of at least 2, or 1 for no groups",
      fields: { experts: E, groups },
    });
  }
  const reachable = topkGroup * size;
  if (topkGroup < 1 || topkGroup > groups || topK < 1 || topK > reachable) {
    throw new ShapeError(
      `route: ${topK} experts cannot be chosen in ${topkGroup} of ${groups} groups of ${size}`,
      {
        why: "a token visits only experts of its topkGroup groups, each of them once",
        fix: "lower numExpertsPerTok to at most topkGroup * nRoutedExperts / nGroup, with topkGroup at most nGroup",
        fields: { experts: E, topK, groups, topkGroup },
      },
    );
  }
}

export const routeKernels: readonly Kernel[] = [routerKernel, routerBackwardKernel];
