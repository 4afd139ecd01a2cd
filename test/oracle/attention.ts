/**
 * Attention in float64 loops from the report's equations, keys concatenated as eq. (4) writes them.
 *
 * Source: DeepSeek-V3 report, section 2.1.1, eq. (1)-(10).
 */
export interface AttentionSizes {
  readonly T: number;
  readonly H: number;
  readonly N: number;
  readonly R: number;
  readonly V: number;
  readonly scale: number;
  /** First token of each sequence, and T at the end. */
  readonly offsets: readonly number[];
}

export interface AttentionInputs {
  readonly q: ArrayLike<number>;
  readonly kv: ArrayLike<number>;
  readonly kRope: ArrayLike<number>;
}

export interface AttentionResult {
  /** [T, H * V] */
  readonly o: Float64Array;
  /** [H, T] */
  readonly lse: Float64Array;
}

export function attentionOracle(inputs: AttentionInputs, sizes: AttentionSizes): AttentionResult {
  const { T, H, N, R, V, scale, offsets } = sizes;
  const { q, kv, kRope } = inputs;
  const o = new Float64Array(T * H * V);
  const lse = new Float64Array(H * T);
  for (let t = 0; t < T; t++) {
    const start = Math.max(...offsets.filter((offset) => offset <= t));
    for (let h = 0; h < H; h++) {
      const weights: number[] = [];
      for (let j = start; j <= t; j++) {
        const key: number[] = []; // k = [k_C; k_R]
        for (let n = 0; n < N; n++) key.push(kv[j * H * (N + V) + h * (N + V) + n]!);
        for (let r = 0; r < R; r++) key.push(kRope[j * R + r]!);
        let product = 0;
        for (let d = 0; d < N + R; d++) product += q[t * H * (N + R) + h * (N + R) + d]! * key[d]!;
        weights.push(Math.exp(product * scale));
      }
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      lse[h * T + t] = Math.log(total);
      for (const [i, weight] of weights.entries()) {
        for (let v = 0; v < V; v++) {
          const value = kv[(start + i) * H * (N + V) + h * (N + V) + N + v]!;
          o[t * H * V + h * V + v]! += (weight / total) * value;
        }
      }
    }
  }
  return { o, lse };
}

/** kv = W_UK/UV latent: row i of kvB makes channel i of every token. */
export function unfoldLatents(
  kvB: ArrayLike<number>,
  latents: ArrayLike<number>,
  channels: number,
  C: number,
): Float64Array {
  const tokens = latents.length / C;
  const kv = new Float64Array(tokens * channels);
  for (let t = 0; t < tokens; t++) {
    for (let i = 0; i < channels; i++) {
      for (let c = 0; c < C; c++) kv[t * channels + i]! += kvB[i * C + c]! * latents[t * C + c]!;
    }
  }
  return kv;
}
