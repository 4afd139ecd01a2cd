/**
 * Cases of the attention kernels: heads that fill no vector, sequences that end inside a tile, cross
 * several, or are empty, heads without plain or without rotated channels, every storage dtype.
 */

import { bf16FromNumber, bf16ToNumber } from "../../../src/tensor/index.ts";
import { absorbedAttentionKernel, cacheAppendKernel } from "../../../src/tensor/ops/absorbedAttention.ts";
import { attentionBackwardKernel, attentionKernel } from "../../../src/tensor/ops/attention.ts";
import { type AttentionSizes, attentionOracle } from "../../oracle/attention.ts";
import type { CaseOperand, OpCase } from "../opCase.ts";
import { normals } from "../random.ts";

type Float = "f32" | "bf16";

/** Random numbers that the dtype holds exactly, so that both sides start from the same. */
function given(shape: readonly number[], dtype: Float, seed: number, std: number = 1): CaseOperand {
  const size = shape.reduce((product, dim) => product * dim, 1);
  return stored(shape, dtype, normals(size, seed, std));
}

function stored(shape: readonly number[], dtype: Float, values: Float64Array): CaseOperand {
  const exact =
    dtype === "bf16" ? values.map((v) => bf16ToNumber(bf16FromNumber(v))) : values.map(Math.fround);
  return { shape, dtype, values: exact };
}

interface Shape {
  readonly name: string;
  readonly lengths: readonly number[];
  readonly heads: readonly [H: number, N: number, R: number, V: number];
}

const shapes: readonly Shape[] = [
  { name: "one token", lengths: [1], heads: [2, 4, 2, 3] },
  { name: "3 sequences, one of them empty", lengths: [5, 0, 18], heads: [3, 6, 4, 5] },
  { name: "sequences that end in, at and behind a tile", lengths: [63, 64, 65], heads: [2, 16, 8, 16] },
  { name: "micro's heads over several tiles", lengths: [7, 150], heads: [4, 16, 8, 16] },
  { name: "nano's heads", lengths: [129], heads: [2, 32, 16, 32] },
  { name: "no plain channels", lengths: [40], heads: [2, 0, 18, 20] },
  { name: "no rotated channels", lengths: [40], heads: [2, 18, 0, 40] },
  { name: "V3's heads", lengths: [70], heads: [1, 128, 64, 128] },
];

function sizesOf({ lengths, heads: [H, N, R, V] }: Shape): AttentionSizes {
  const offsets = [0];
  for (const length of lengths) offsets.push(offsets.at(-1)! + length);
  return { T: offsets.at(-1)!, H, N, R, V, scale: 1 / Math.sqrt(N + R), offsets };
}

function operandsOf({ T, H, N, R, V, offsets }: AttentionSizes, dtype: Float, seed: number) {
  return {
    q: given([T, H * (N + R)], dtype, seed),
    kv: given([T, H * (N + V)], dtype, seed + 1),
    kRope: given([T, R], dtype, seed + 2),
    seqOffsets: { shape: [offsets.length], dtype: "i32", values: offsets } satisfies CaseOperand,
  };
}

function paramsOf({ T, H, N, R, V, scale, offsets }: AttentionSizes): Record<string, number> {
  return { T, H, N, R, V, S: offsets.length - 1, scale };
}

const forward: readonly OpCase[] = shapes.flatMap((shape, i) =>
  (["f32", "bf16"] as const).map((dtype): OpCase => {
    const sizes = sizesOf(shape);
    const { T, H, V } = sizes;
    return {
      name: `${shape.name}, ${dtype}`,
      kernel: attentionKernel,
      operands: {
        ...operandsOf(sizes, dtype, 10 * i),
        o: { shape: [T, H * V], dtype },
        lse: { shape: [H, T], dtype: "f32" },
      },
      params: paramsOf(sizes),
      tolerance: { o: dtype, lse: "f32" },
    };
  }),
);

/** Every operand in a dtype of its own. */
const mixed: readonly OpCase[] = (["f32", "bf16"] as const).map((dtype): OpCase => {
  const other = dtype === "f32" ? "bf16" : "f32";
  const sizes = sizesOf(shapes[1]!);
  const { q, kv, kRope, seqOffsets } = operandsOf(sizes, dtype, 300);
  const o: CaseOperand = { shape: [sizes.T, sizes.H * sizes.V], dtype };
  return {
    name: `q and o ${dtype}, kv ${other}, kRope ${dtype}`,
    kernel: attentionKernel,
    operands: {
      q,
      kv: stored(kv.shape, other, Float64Array.from(kv.values!)),
      kRope,
      seqOffsets,
      o,
      lse: { shape: [sizes.H, sizes.T], dtype: "f32" },
    },
    params: paramsOf(sizes),
    tolerance: { o: dtype, lse: "f32" },
  };
});

const backward: readonly OpCase[] = shapes.flatMap((shape, i) =>
  (["f32", "bf16"] as const).map((dtype): OpCase => {
    const sizes = sizesOf(shape);
    const { T, H, R, V } = sizes;
    const inputs = operandsOf(sizes, dtype, 10 * i);
    const { q, kv, kRope } = inputs;
    const { o, lse } = attentionOracle({ q: q.values!, kv: kv.values!, kRope: kRope.values! }, sizes);
    return {
      name: `${shape.name}, ${dtype}`,
      kernel: attentionBackwardKernel,
      operands: {
        ...inputs,
        do: given([T, H * V], dtype, 10 * i + 3),
        o: stored([T, H * V], dtype, o),
        lse: stored([H, T], "f32", lse),
        dq: { shape: q.shape, dtype },
        dkv: { shape: kv.shape, dtype },
        dkRope: { shape: kRope.shape, dtype },
        workspace: { shape: [H * T * (R + 1)], dtype: "f32" },
      },
      params: paramsOf(sizes),
      tolerance: dtype === "f32" ? "f32Long" : "bf16",
      ...(dtype === "bf16" && { amxTolerance: "bf16Twice" }),
      scratch: ["workspace"],
    };
  }),
);

interface Step {
  readonly name: string;
  readonly M: number;
  readonly past: number;
  readonly heads: readonly [H: number, N: number, R: number, V: number, C: number];
  readonly kvB?: Float;
}

const steps: readonly Step[] = [
  { name: "the first token", M: 1, past: 0, heads: [4, 16, 8, 16, 32] },
  { name: "one token of nano behind 100", M: 1, past: 100, heads: [4, 32, 16, 32, 64] },
  {
    name: "several tokens over a tile's end, more of them than a task takes",
    M: 19,
    past: 60,
    heads: [3, 6, 4, 5, 20],
  },
  {
    name: "no rotated channels, latents stored beside packed bf16",
    M: 2,
    past: 64,
    heads: [5, 8, 0, 40, 48],
    kvB: "bf16",
  },
  { name: "V3's heads", M: 1, past: 70, heads: [3, 128, 64, 128, 512] },
];

const absorbed: readonly OpCase[] = steps.flatMap(
  ({ name, M, past, heads: [H, N, R, V, C], kvB = "f32" }, i) =>
    (
      [
        ["f32", 0],
        ["f32", 1],
        ["bf16", 1],
      ] as const
    ).map(([dtype, round]): OpCase => {
      const capacity = past + M + 3;
      return {
        name: `${name}, ${dtype}, kvB ${round === 1 ? "rounded" : "as it is"}`,
        kernel: absorbedAttentionKernel,
        operands: {
          q: given([M, H * (N + R)], dtype, 100 + i),
          kvB: given([H * (N + V), C], kvB, 110 + i, 1 / Math.sqrt(C)),
          cacheLatent: given([capacity, C], dtype, 120 + i),
          cacheRope: given([capacity, R], dtype, 130 + i),
          o: { shape: [M, H * V], dtype },
        },
        params: { M, H, N, R, V, C, past, scale: 1 / Math.sqrt(N + R), round },
        tolerance: dtype === "f32" ? "f32Long" : "bf16",
      };
    }),
);

const append: readonly OpCase[] = (["f32", "bf16"] as const).flatMap((from) =>
  (["f32", "bf16"] as const).map((to): OpCase => {
    const [M, C, R, at, capacity] = [3, 20, 6, 4, 9];
    return {
      name: `${from} into ${to}, rows before and behind stay`,
      kernel: cacheAppendKernel,
      operands: {
        latent: given([M, C], from, 200),
        kRope: given([M, R], from, 201),
        cacheLatent: given([capacity, C], to, 202),
        cacheRope: given([capacity, R], to, 203),
      },
      params: { M, C, R, at },
      tolerance: "exact",
    };
  }),
);

export const attentionCases: readonly OpCase[] = [...forward, ...mixed, ...backward, ...absorbed, ...append];
