/**
 * What the parts of a layer compute and move for one micro-batch: forward, gradients of inputs, gradients of weights.
 *
 * Products are counted with their shapes, so that their bytes are known too; passes (norms, casts to FP8, SwiGLU,
 * permutations) by the bytes they must read and write. Recomputation is that of report 3.2.3: RMSNorm, the MLA
 * up-projections, SwiGLU. Not counted: work that hides in other kernels, such as scales and masks.
 */
import { type ModelConfig, qkHeadDim } from "../model/index.ts";

/** Amounts for one micro-batch on one device. Times come from ./roofline.ts. */
export interface Work {
  readonly fp8Flops: number;
  readonly bf16Flops: number;
  readonly attentionForwardFlops: number;
  readonly attentionBackwardFlops: number;
  /** Read and written by products. */
  readonly productBytes: number;
  /** Read and written by passes that only move and convert. */
  readonly passBytes: number;
}

export interface PhaseWork {
  readonly forward: Work;
  readonly backwardInput: Work;
  readonly backwardWeight: Work;
}

/** A layer's two halves, which the overlapped pair interleaves with different transfers. */
export interface LayerWork {
  readonly attention: PhaseWork;
  readonly mlp: PhaseWork;
}

export interface WorkSize {
  /** Tokens in a micro-batch. */
  readonly tokens: number;
  readonly rowLength: number;
  readonly precision: "fp8" | "bf16";
  readonly ep: number;
  /** Different devices of the expert group that a token visits, on average. */
  readonly devicesPerToken: number;
}

/** `groups` times y = x w^T, with `rows` in all groups together. */
interface Product {
  readonly rows: number;
  readonly in: number;
  readonly out: number;
  readonly groups?: number;
  /** Embedding, head and router stay in BF16. */
  readonly isBf16?: boolean;
  /** An MLA up-projection: computed once more in backward. */
  readonly isRecomputed?: boolean;
}

export const noWork: Work = Object.freeze({
  fp8Flops: 0,
  bf16Flops: 0,
  attentionForwardFlops: 0,
  attentionBackwardFlops: 0,
  productBytes: 0,
  passBytes: 0,
});

export function addWork(...works: readonly Work[]): Work {
  const sum = (of: (work: Work) => number): number => works.reduce((total, work) => total + of(work), 0);
  return {
    fp8Flops: sum((work) => work.fp8Flops),
    bf16Flops: sum((work) => work.bf16Flops),
    attentionForwardFlops: sum((work) => work.attentionForwardFlops),
    attentionBackwardFlops: sum((work) => work.attentionBackwardFlops),
    productBytes: sum((work) => work.productBytes),
    passBytes: sum((work) => work.passBytes),
  };
}

export function addPhases(...phases: readonly PhaseWork[]): PhaseWork {
  return {
    forward: addWork(...phases.map((phase) => phase.forward)),
    backwardInput: addWork(...phases.map((phase) => phase.backwardInput)),
    backwardWeight: addWork(...phases.map((phase) => phase.backwardWeight)),
  };
}

export function attentionWork(config: ModelConfig, size: WorkSize): PhaseWork {
  const {
    hiddenSize: D,
    numAttentionHeads: H,
    qLoraRank,
    kvLoraRank: C,
    qkRopeHeadDim: R,
    vHeadDim,
  } = config;
  const { tokens } = size;
  const queries = H * qkHeadDim(config);
  const keysValues = H * (config.qkNopeHeadDim + vHeadDim);
  const outputs = H * vHeadDim;
  const latents = (qLoraRank ?? 0) + C;
  const query: Product[] =
    qLoraRank === null
      ? [{ rows: tokens, in: D, out: queries }]
      : [
          { rows: tokens, in: D, out: qLoraRank },
          { rows: tokens, in: qLoraRank, out: queries, isRecomputed: true },
        ];
  const products: Product[] = [
    ...query,
    { rows: tokens, in: D, out: C + R },
    { rows: tokens, in: C, out: keysValues, isRecomputed: true },
    { rows: tokens, in: outputs, out: D },
  ];
  const cast = castBytes(size);
  // Rotation of queries in place, keys assembled with the one rotary key, values made contiguous: BF16.
  const assembled = 4 * H * R + 4 * queries + 4 * outputs;
  const forward = norm(D) + cast(D) + norm(latents) + cast(latents) + assembled + cast(outputs) + add(D);
  const recomputed = norm(D) + norm(latents) + cast(latents) + assembled;
  // What the attention kernel leaves: dO * O, then dQ from f32; rotations backwards; casts of every output gradient.
  const gradients = 4 * outputs + 10 * queries + assembled + cast(D) + cast(queries) + cast(keysValues);
  const backward = recomputed + gradients + normBackward(latents) + normBackward(D) + add(D);
  const core = 2 * H * (qkHeadDim(config) + vHeadDim) * (size.rowLength / 2) * tokens;
  const coreBytes = 2 * (2 * queries + 2 * outputs) * tokens;
  const base = productPhases(products, size);
  return addPhases(base, {
    forward: { ...noWork, attentionForwardFlops: core, productBytes: coreBytes, passBytes: forward * tokens },
    // Five products instead of two: the scores are computed again.
    backwardInput: {
      ...noWork,
      attentionBackwardFlops: 2.5 * core,
      productBytes: 2.5 * coreBytes,
      passBytes: backward * tokens,
    },
    backwardWeight: noWork,
  });
}

export function denseMlpWork(config: ModelConfig, size: WorkSize): PhaseWork {
  return swigluWork(config.hiddenSize, [{ rows: size.tokens, width: config.intermediateSize }], size);
}

/** Shared and routed experts, the router, and the permutations around them; transfers are in ./traffic.ts. */
export function moeWork(config: ModelConfig, size: WorkSize): PhaseWork {
  const { hiddenSize: D, moeIntermediateSize: F, nRoutedExperts: E, numExpertsPerTok: K } = config;
  const { tokens, devicesPerToken } = size;
  const experts = swigluWork(
    D,
    [
      { rows: tokens, width: config.nSharedExperts * F },
      { rows: tokens * K, width: F, groups: E / size.ep },
    ],
    size,
  );
  const router = productPhases([{ rows: tokens, in: D, out: E, isBf16: true }], size);
  const bytes = size.precision === "fp8" ? 1 : 2;
  // One row of each token for each of its experts, made of the row for each of its devices, and back.
  const expanded = (devicesPerToken + K) * bytes * D;
  const reduced = (K + devicesPerToken) * 2 * D;
  const permuted = { ...noWork, passBytes: (expanded + reduced + add(D)) * tokens };
  return addPhases(experts, router, { forward: permuted, backwardInput: permuted, backwardWeight: noWork });
}

/** The output head with its loss; MTP's modules use it once more each. */
export function headWork(config: ModelConfig, size: WorkSize): PhaseWork {
  const { hiddenSize: D, vocabSize } = config;
  const base = productPhases([{ rows: size.tokens, in: D, out: vocabSize, isBf16: true }], size);
  // Softmax reads the logits in BF16 and leaves their gradient there.
  const loss = { ...noWork, passBytes: (norm(D) + 4 * vocabSize) * size.tokens };
  return addPhases(base, { forward: loss, backwardInput: loss, backwardWeight: noWork });
}

/** An MTP module's projection of [embedding; hidden]; its layer and head are counted as layers and heads. */
export function mtpProjectionWork(config: ModelConfig, size: WorkSize): PhaseWork {
  const D = config.hiddenSize;
  return productPhases([{ rows: size.tokens, in: 2 * D, out: D, isBf16: true }], size);
}

function swigluWork(
  D: number,
  parts: readonly { rows: number; width: number; groups?: number }[],
  size: WorkSize,
): PhaseWork {
  const cast = castBytes(size);
  const kept = size.precision === "fp8" ? 1 : 2;
  const products = parts.flatMap(({ rows, width, groups = 1 }): Product[] => [
    { rows, in: D, out: 2 * width, groups },
    { rows, in: width, out: D, groups },
  ]);
  const inner = (bytes: number): number =>
    parts.reduce((sum, { rows, width }) => sum + rows * width * bytes, 0);
  const outer = (bytes: number): number => size.tokens * bytes;
  const passes = (bytes: number): Work => ({ ...noWork, passBytes: bytes });
  return addPhases(productPhases(products, size), {
    // Gate and up in BF16 to their product, ready to be multiplied.
    forward: passes(outer(norm(D) + cast(D) + add(D)) + inner(4 + kept)),
    // The cached gate and up, the gradient of their product, their own gradients, and those in FP8.
    backwardInput: passes(
      outer(norm(D) + normBackward(D) + cast(D) + add(D)) + inner(2 * kept + 2 + 4) + inner(cast(2)),
    ),
    backwardWeight: noWork,
  });
}

/** Reads BF16, writes it. */
function norm(width: number): number {
  return 4 * width;
}

/** Reads the input and its gradient, adds to the gradient of the residual stream. */
function normBackward(width: number): number {
  return 8 * width;
}

/** Two BF16 operands, one result. */
function add(width: number): number {
  return 6 * width;
}

/** Bytes per token of a conversion to FP8 with its scales computed online; nothing in BF16. */
function castBytes({ precision }: WorkSize): (width: number) => number {
  return (width) => (precision === "fp8" ? 3 * width : 0);
}

function productPhases(products: readonly Product[], { precision }: WorkSize): PhaseWork {
  const phases = products.map((product): PhaseWork => {
    const { rows, in: K, out: N, groups = 1 } = product;
    const isFp8 = precision === "fp8" && product.isBf16 !== true;
    const operand = isFp8 ? 1 : 2;
    const flops = 2 * rows * K * N;
    const inputs = rows * K;
    const outputs = rows * N;
    const weights = groups * K * N;
    const make = (productBytes: number, passBytes: number): Work => ({
      ...noWork,
      [isFp8 ? "fp8Flops" : "bf16Flops"]: flops,
      productBytes,
      passBytes,
    });
    const forward = make(operand * (inputs + weights) + 2 * outputs, 0);
    const inputGradient = make(operand * (outputs + weights) + 2 * inputs, 0);
    // Wgrad sums over tokens: FP8 tiles lie the other way and are made again from the kept input and the gradient.
    const turned = isFp8 ? 2 * inputs + 3 * outputs : 0;
    return {
      forward,
      backwardInput: product.isRecomputed === true ? addWork(inputGradient, forward) : inputGradient,
      // Added to f32 gradients: read and written.
      backwardWeight: make(operand * (inputs + outputs) + 8 * weights, turned),
    };
  });
  return addPhases(...phases);
}
