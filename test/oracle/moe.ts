/**
 * DeepSeekMoE in float64, straight from the equations, importing nothing of the product.
 *
 * Choices are made by counting who beats whom, not by sorting, so that this is a second way to them.
 *
 * Source: DeepSeek-V3 report, sections 2.1.2, eq. (12)-(20).
 */
export interface OracleRouting {
  readonly experts: number;
  readonly topK: number;
  readonly groups: number;
  readonly topkGroup: number;
  readonly scale: number;
  readonly normalise: boolean;
}

export interface OracleRoute {
  readonly affinity: number[];
  /** Ascending. */
  readonly expertIds: number[];
  readonly weights: number[];
}

export function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

/** i beats j if its score is higher, or equal at a lower index. */
function beats(scores: readonly number[], i: number, j: number): boolean {
  return scores[i]! > scores[j]! || (scores[i]! === scores[j]! && i < j);
}

/** The members of `among` that fewer than `count` others of it beat. */
export function winners(scores: readonly number[], among: readonly number[], count: number): number[] {
  return among.filter((j) => among.filter((i) => beats(scores, i, j)).length < count);
}

/** Eq. (13)-(16) for one token, groups as in the released code: the best pair's sum decides. */
export function routeToken(
  logits: readonly number[],
  bias: readonly number[],
  routing: OracleRouting,
): OracleRoute {
  const { experts, topK, groups, topkGroup, scale, normalise } = routing;
  const all = [...Array(experts).keys()];
  const affinity = logits.map(sigmoid);
  const score = affinity.map((s, e) => s + bias[e]!);
  const groupOf = (e: number): number => Math.floor((e * groups) / experts);
  const groupScore = [...Array(groups).keys()].map((g) => {
    const members = all.filter((e) => groupOf(e) === g);
    let best = Number.NEGATIVE_INFINITY;
    for (const a of members)
      for (const b of members) if (a !== b) best = Math.max(best, score[a]! + score[b]!);
    return best;
  });
  const open = groups === 1 ? [0] : winners(groupScore, [...Array(groups).keys()], topkGroup);
  const expertIds = winners(
    score,
    all.filter((e) => open.includes(groupOf(e))),
    topK,
  );
  let sum = 0;
  for (const e of expertIds) sum += affinity[e]!;
  const weights = expertIds.map((e) =>
    normalise ? (scale * affinity[e]!) / (sum + 1e-20) : scale * affinity[e]!,
  );
  return { affinity, expertIds, weights };
}

/** Eq. (17)-(20): the mean over sequences that have tokens. `affinity` holds one row per token. */
export function balanceLoss(
  affinity: readonly (readonly number[])[],
  seqOffsets: readonly number[],
  topK: number,
  alpha: number,
): number {
  const losses: number[] = [];
  for (let i = 0; i + 1 < seqOffsets.length; i++) {
    const tokens = affinity.slice(seqOffsets[i], seqOffsets[i + 1]);
    const T = tokens.length;
    if (T === 0) continue;
    const E = tokens[0]!.length;
    let loss = 0;
    for (let e = 0; e < E; e++) {
      let chosen = 0;
      let share = 0;
      for (const s of tokens) {
        if (winners(s, [...s.keys()], topK).includes(e)) chosen++;
        share += s[e]! / s.reduce((a, b) => a + b, 0);
      }
      const f = (E / (topK * T)) * chosen;
      const P = share / T;
      loss += f * P;
    }
    losses.push(alpha * loss);
  }
  return losses.length === 0 ? 0 : losses.reduce((a, b) => a + b, 0) / losses.length;
}

/** Eq. (12) without the residual: every expert's answer times its gate, plus the shared expert's. */
export function mixture(
  /** One row of expert ids and one of weights per token. */
  routes: readonly { readonly expertIds: readonly number[]; readonly weights: readonly number[] }[],
  answer: (token: number, expert: number, d: number) => number,
  shared: (token: number, d: number) => number,
  D: number,
): number[] {
  return routes.flatMap(({ expertIds, weights }, t) =>
    [...Array(D).keys()].map((d) => {
      let y = shared(t, d);
      expertIds.forEach((e, k) => {
        y += weights[k]! * answer(t, e, d);
      });
      return y;
    }),
  );
}

/** Where the rows go: sorted by expert, by token within one. */
export function sortedSlots(expertIds: readonly (readonly number[])[]): { token: number; expert: number }[] {
  const slots = expertIds.flatMap((ids, token) => ids.map((expert) => ({ token, expert })));
  return slots.sort((a, b) => a.expert - b.expert || a.token - b.token);
}

/** W x for one row: `w` is [N, K], flat, of one expert. */
export function project(w: ArrayLike<number>, start: number, x: readonly number[], N: number): number[] {
  return [...Array(N).keys()].map((n) =>
    x.reduce((sum, value, k) => sum + w[start + n * x.length + k]! * value, 0),
  );
}
