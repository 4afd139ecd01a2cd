/**
 * Head, cross-entropy and its gradient in float64, token by token and logit by logit, importing nothing of the product.
 *
 * The gradient is the quotient form: d(-log p_t)/dz_v = -(1 / p_t) dp_t/dz_v, dp_t/dz_v = p_t ([v = t] - p_v).
 *
 * Source: DeepSeek-V3 report, eq. (24); a target of -1 is left out, as -100 is by PyTorch's
 * cross_entropy.
 */
type Numbers = ArrayLike<number>;

export interface HeadLoss {
  readonly loss: number[];
  readonly hits: number[];
  /** Gradients of gradScale * sum(loss). */
  readonly dx: number[];
  readonly dw: number[];
}

/** @param w  [V, D], not packed */
export function headLossOracle(
  x: Numbers,
  w: Numbers,
  targets: Numbers,
  { T, D, V, gradScale }: { T: number; D: number; V: number; gradScale: number },
): HeadLoss {
  const result: HeadLoss = {
    loss: new Array<number>(T).fill(0),
    hits: new Array<number>(T).fill(0),
    dx: new Array<number>(T * D).fill(0),
    dw: new Array<number>(V * D).fill(0),
  };
  for (let t = 0; t < T; t++) {
    const target = targets[t]!;
    if (target < 0) continue;
    const z: number[] = [];
    for (let v = 0; v < V; v++) {
      let sum = 0;
      for (let k = 0; k < D; k++) sum += x[t * D + k]! * w[v * D + k]!;
      z.push(sum);
    }
    const partition = z.reduce((sum, logit) => sum + Math.exp(logit), 0);
    const p = z.map((logit) => Math.exp(logit) / partition);
    result.loss[t] = -Math.log(p[target]!);
    result.hits[t] = z.indexOf(Math.max(...z)) === target ? 1 : 0;
    for (let v = 0; v < V; v++) {
      const dTarget = p[target]! * ((v === target ? 1 : 0) - p[v]!);
      const dz = gradScale * -(1 / p[target]!) * dTarget;
      for (let k = 0; k < D; k++) {
        result.dx[t * D + k]! += dz * w[v * D + k]!;
        result.dw[v * D + k]! += dz * x[t * D + k]!;
      }
    }
  }
  return result;
}
