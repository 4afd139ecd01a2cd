/** Cases of sampling: every filter alone and with the others, ties, rows without a distribution, both dtypes. */

import { bf16FromNumber, bf16ToNumber } from "../../../src/tensor/index.ts";
import { sampleKernel } from "../../../src/tensor/ops/sample.ts";
import type { OpCase } from "../opCase.ts";
import { normals } from "../random.ts";

interface Draw {
  readonly logits: ArrayLike<number>;
  readonly V: number;
  readonly dtype?: "f32" | "bf16";
  readonly row?: number;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
}

/** The same draw at several counters. */
function draws(name: string, draw: Draw): OpCase[] {
  const { logits, V, dtype = "f32", row = 0, temperature = 1, topK = 0, topP = 1 } = draw;
  return [0, 1, 2, 2 ** 40].map((counter) => ({
    name: `${name}, counter ${counter}`,
    kernel: sampleKernel,
    operands: {
      logits: { shape: [logits.length / V, V], dtype, values: logits },
      token: { shape: [1], dtype: "i32" },
    },
    params: { V, row, temperature, topK, topP, seed: 12_345_678_901, counter },
    tolerance: "exact",
  }));
}

const wide = normals(3 * 501, 61, 3);
const narrow = wide.map((logit) => bf16ToNumber(bf16FromNumber(logit)));
const ties = normals(200, 62, 2).map(Math.round);
const { NaN: nan, POSITIVE_INFINITY: infinity, NEGATIVE_INFINITY: masked } = Number;

export const sampleCases: readonly OpCase[] = [
  ...draws("plain", { logits: wide, V: 501 }),
  ...draws("second row, cool", { logits: wide, V: 501, row: 1, temperature: 0.6 }),
  ...draws("last row, hot", { logits: wide, V: 501, row: 2, temperature: 2.5 }),
  ...draws("greedy", { logits: wide, V: 501, temperature: 0 }),
  ...draws("greedy among ties", { logits: ties, V: 200, temperature: 0 }),
  ...draws("top-k", { logits: wide, V: 501, topK: 7 }),
  ...draws("top-k among ties", { logits: ties, V: 200, topK: 30 }),
  ...draws("top-k beyond the vocabulary", { logits: ties, V: 200, topK: 1000 }),
  ...draws("top-p", { logits: wide, V: 501, topP: 0.8 }),
  ...draws("top-p among ties", { logits: ties, V: 200, topP: 0.9 }),
  ...draws("top-p of nothing keeps the best", { logits: wide, V: 501, topP: 0 }),
  ...draws("top-k, then top-p", { logits: wide, V: 501, topK: 40, topP: 0.7, temperature: 0.9 }),
  ...draws("bf16", { logits: narrow, V: 501, dtype: "bf16", topK: 100, topP: 0.95 }),
  ...draws("one token", { logits: [3], V: 1, topK: 1, topP: 0.5 }),
  ...draws("masked tokens", { logits: [masked, 0, masked, 1], V: 4 }),
  ...draws("nothing but masked tokens", { logits: [masked, masked], V: 2 }),
  ...draws("a NaN", { logits: [0, nan, 1], V: 3 }),
  ...draws("an infinity", { logits: [0, infinity, 1], V: 3, temperature: 0 }),
];
