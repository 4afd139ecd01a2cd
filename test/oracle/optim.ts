/**
 * AdamW, gradient norm and moving average in float64, weight by weight, importing nothing of the product.
 *
 * Source: Loshchilov and Hutter (2019), algorithm 2, with the schedule multiplier folded into the rate.
 */
type Numbers = ArrayLike<number>;
type Operands = Readonly<Record<string, Numbers | null>>;
type Params = Readonly<Record<string, number>>;
export type OptimOracle = (operands: Operands, params: Params) => Record<string, number[]>;

const list = (values: Numbers | null | undefined): number[] => Array.from(values ?? []);

/** One row after another of 32 outputs side by side; K rounded up to even; B blocks. */
function panelsOf(w: (b: number, o: number, d: number) => number, B: number, outputs: number, depth: number) {
  const panels: number[] = [];
  for (let b = 0; b < B; b++) {
    for (let first = 0; first < outputs; first += 32) {
      for (let d = 0; d < depth + (depth % 2); d++) {
        for (let o = first; o < first + 32; o++) panels.push(o < outputs && d < depth ? w(b, o, d) : 0);
      }
    }
  }
  return panels;
}

export function adamwOracle(operands: Operands, params: Params): Record<string, number[]> {
  const { B, N, K, learningRate, beta1, beta2, eps, weightDecay, step, clip } = params as Record<
    string,
    number
  > &
    Record<
      "B" | "N" | "K" | "learningRate" | "beta1" | "beta2" | "eps" | "weightDecay" | "step" | "clip",
      number
    >;
  const [w, grad, m, v] = [operands["w"], operands["grad"], operands["m"], operands["v"]].map(list) as [
    number[],
    number[],
    number[],
    number[],
  ];
  const norm = operands["norm"]?.[0];
  const tooLong = norm === undefined ? 1 : (norm + 1e-6) / clip;
  for (const i of w.keys()) {
    const g = tooLong <= 1 ? grad[i]! : grad[i]! / tooLong;
    m[i] = g + beta1 * (m[i]! - g);
    v[i] = g ** 2 + beta2 * (v[i]! - g ** 2);
    const mHat = m[i]! / (1 - Math.exp(step * Math.log(beta1)));
    const vHat = v[i]! / (1 - Math.exp(step * Math.log(beta2)));
    w[i] = w[i]! * (1 - learningRate * weightDecay) - (learningRate * mHat) / (Math.sqrt(vHat) + eps);
  }
  const outputs: Record<string, number[]> = { w, grad: grad.map(() => 0), m, v };
  if (operands["panels"] != null) outputs["panels"] = panelsOf((b, o, d) => w[(b * N + o) * K + d]!, B, N, K);
  if (operands["panelsT"] != null)
    outputs["panelsT"] = panelsOf((b, o, d) => w[(b * N + d) * K + o]!, B, K, N);
  return outputs;
}

export const optimOracles: Readonly<Record<string, OptimOracle>> = {
  adamw: adamwOracle,
  sumSquares: ({ x }) => ({ partial: [list(x).reduce((sum, value) => sum + value ** 2, 0)] }),
  gradNorm: ({ partials }) => ({ norm: [list(partials).reduce((sum, value) => sum + value, 0) ** 0.5] }),
  ema: ({ ema, w }, { decay }) => ({
    ema: list(ema).map((average, i) => decay! * average + (1 - decay!) * w![i]!),
  }),
};
