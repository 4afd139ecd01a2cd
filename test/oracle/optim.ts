/**
 * AdamW, Muon, gradient norm and moving average in float64, weight by weight, importing nothing of the product.
 *
 * Source: Loshchilov and Hutter (2019), algorithm 2, with the schedule multiplier folded into the rate; Jordan, "Muon"
 * (2024); Liu et al., "Muon is scalable for LLM training" (2025).
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

/** X of [N, K] by X' = a X + b G X + c G (G X), G = X X^T: never the square of G, whichever side is longer. */
function newtonSchulz(u: readonly number[], N: number, K: number): number[] {
  const length = Math.sqrt(u.reduce((sum, value) => sum + value ** 2, 0)) + 1e-7;
  let x = u.map((value) => value / length);
  for (let round = 0; round < 5; round++) {
    const gram = Array.from({ length: N * N }, (_, at) => {
      const [i, j] = [Math.floor(at / N), at % N];
      let sum = 0;
      for (let k = 0; k < K; k++) sum += x[i * K + k]! * x[j * K + k]!;
      return sum;
    });
    const times = (y: readonly number[]): number[] =>
      y.map((_, at) => {
        const [i, k] = [Math.floor(at / K), at % K];
        let sum = 0;
        for (let j = 0; j < N; j++) sum += gram[i * N + j]! * y[j * K + k]!;
        return sum;
      });
    const once = times(x);
    const twice = times(once);
    x = x.map((value, at) => 3.4445 * value - 4.775 * once[at]! + 2.0315 * twice[at]!);
  }
  return x;
}

export function muonOracle(operands: Operands, params: Params): Record<string, number[]> {
  const of = (name: string): number => params[name]!;
  const [B, N, K, momentum] = [of("B"), of("N"), of("K"), of("momentum")];
  const [w, grad, m] = [list(operands["w"]), list(operands["grad"]), list(operands["m"])];
  const norm = operands["norm"]?.[0];
  const tooLong = norm === undefined ? 1 : (norm + 1e-6) / of("clip");
  for (let block = 0; block < B; block++) {
    const places = Array.from({ length: N * K }, (_, i) => block * N * K + i);
    const u = places.map((i) => {
      const g = tooLong <= 1 ? grad[i]! : grad[i]! / tooLong;
      m[i] = momentum * m[i]! + g;
      return g + momentum * m[i]!;
    });
    const direction = newtonSchulz(u, N, K);
    const reach = 0.2 * Math.sqrt(Math.max(N, K));
    for (const [j, i] of places.entries())
      w[i] = w[i]! - of("learningRate") * (of("weightDecay") * w[i]! + reach * direction[j]!);
  }
  const outputs: Record<string, number[]> = {
    w,
    grad: grad.map(() => 0),
    m,
    panels: panelsOf((b, o, d) => w[(b * N + o) * K + d]!, B, N, K),
  };
  if (operands["panelsT"] != null)
    outputs["panelsT"] = panelsOf((b, o, d) => w[(b * N + d) * K + o]!, B, K, N);
  return outputs;
}

export const optimOracles: Readonly<Record<string, OptimOracle>> = {
  adamw: adamwOracle,
  muon: muonOracle,
  sumSquares: ({ x }) => ({ partial: [list(x).reduce((sum, value) => sum + value ** 2, 0)] }),
  gradNorm: ({ partials }) => ({ norm: [list(partials).reduce((sum, value) => sum + value, 0) ** 0.5] }),
  ema: ({ ema, w }, { decay }) => ({
    ema: list(ema).map((average, i) => decay! * average + (1 - decay!) * w![i]!),
  }),
};
