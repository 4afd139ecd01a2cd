/** Matrix products of the sizes that training has: what `bench kernels` and the gemm row time. */
import {
  type Dtype,
  fp8MatmulKernel,
  groupedLinear,
  linear,
  Parameter,
  panelElements,
  planDispatch,
  type QueueDevice,
  type Tensor,
  TILE,
  tilesOf,
} from "../../tensor/index.ts";

export interface Product {
  readonly name: string;
  readonly flops: number;
  /** Enqueues it once. */
  run(): void;
}

/** y[M, N] = x[M, K] @ w[N, K]^T with w packed, as the optimizer leaves it. */
export function openProduct(device: QueueDevice, dtype: Dtype, M: number, N: number, K: number): Product {
  const x = filled(device, [M, K], dtype);
  const w = weight(device, `bench.${N}x${K}`, [N, K], dtype);
  return {
    name: `${M} x ${N} x ${K}`,
    flops: 2 * M * N * K,
    run: inScope(device, () => void linear(x, w, dtype)),
  };
}

/** The same in FP8: x with a scale per 128 channels, w per block of 128 x 128, blocks of 128 products promoted to f32. */
export function openFp8Product(device: QueueDevice, M: number, N: number, K: number): Product {
  const codes = (shape: readonly number[]): Tensor => filled(device, shape, "f8e4m3");
  const scales = (shape: readonly number[]): Tensor => filled(device, shape, "f32");
  const operands = {
    x: codes([M, K]),
    xScales: scales([M, tilesOf(K)]),
    panels: codes([panelElements(N, K)]),
    wScales: scales([tilesOf(N), tilesOf(K)]),
    addend: null,
    y: device.temporary([M, N], "bf16"),
  };
  const params = { M, N, K, transposed: 0, promotion: TILE, accumulatorBits: 0 };
  return {
    name: `${M} x ${N} x ${K} in FP8`,
    flops: 2 * M * N * K,
    run: () => device.run(fp8MatmulKernel, operands, params),
  };
}

/** T tokens, each to topK of E experts of [N, K], every expert with an equal share. */
export function openGrouped(
  device: QueueDevice,
  dtype: Dtype,
  { T, E, topK, N, K }: Readonly<Record<"T" | "E" | "topK" | "N" | "K", number>>,
): Product {
  const x = filled(device, [T, K], dtype);
  const w = weight(device, "bench.experts", [E, N, K], dtype);
  const ids = device.temporary([T, topK], "i32");
  const spread = (i: number): number =>
    Math.floor((i % topK) * (E / topK)) + (Math.floor(i / topK) % (E / topK));
  ids.write(Int32Array.from({ length: T * topK }, (_, i) => spread(i)));
  const plan = planDispatch(ids, E, E / 4);
  return {
    name: `${T} tokens to ${topK} of ${E} experts of ${N} x ${K}`,
    flops: 2 * T * topK * N * K,
    run: inScope(device, () => void groupedLinear(x, w, plan, dtype)),
  };
}

function inScope(device: QueueDevice, run: () => void): () => void {
  return () => {
    using _scope = device.scope();
    run();
  };
}

function weight(device: QueueDevice, path: string, shape: readonly number[], compute: Dtype): Parameter {
  const made = Parameter.make(device, path, shape, { compute, master: "f32", isTrained: false });
  made.master.write(pattern(made.size));
  made.repack();
  return made;
}

function filled(device: QueueDevice, shape: readonly number[], dtype: Dtype): Tensor {
  const tensor = device.temporary(shape, dtype);
  tensor.write(pattern(tensor.size));
  return tensor;
}

function pattern(length: number): Float32Array {
  return Float32Array.from({ length }, (_, i) => ((i * 37) % 101) / 50 - 1);
}
