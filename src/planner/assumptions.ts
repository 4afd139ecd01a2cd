/**
 * Every constant of the uncalibrated cost model, with where it is from. None was chosen to meet the published step.
 *
 * The four efficiencies are what published kernels reach on published shapes; the shapes are here, so that a test can
 * derive the numbers again.
 */
import { formatQuantity } from "../base/index.ts";
import { type Cluster, type Efficiency, hopperEfficiency, shareComputing } from "./cluster.ts";

export interface Assumption {
  readonly name: string;
  readonly value: string;
  readonly source: string;
}

/** One product of a table: `groups` times [rows, in] x [out, in]^T. */
export interface PublishedProduct {
  readonly groups: number;
  readonly rows: number;
  readonly out: number;
  readonly in: number;
  readonly tflops: number;
  /** How many times longer the kernels before it took: those that V3 was trained with. */
  readonly speedup: number;
}

/** DeepGEMM's first README (25 February 2025): FP8 on an H800, the shapes of V3 with 4,096 tokens, and its groups of experts. */
export const deepGemmTable: readonly PublishedProduct[] = [
  { groups: 1, rows: 4096, out: 2112, in: 7168, tflops: 1058, speedup: 1.1 },
  { groups: 1, rows: 4096, out: 24576, in: 1536, tflops: 990, speedup: 1 },
  { groups: 1, rows: 4096, out: 32768, in: 512, tflops: 590, speedup: 1 },
  { groups: 1, rows: 4096, out: 7168, in: 16384, tflops: 1358, speedup: 1.2 },
  { groups: 1, rows: 4096, out: 4096, in: 7168, tflops: 1304, speedup: 1.1 },
  { groups: 1, rows: 4096, out: 7168, in: 2048, tflops: 1025, speedup: 1.1 },
  { groups: 4, rows: 8192, out: 4096, in: 7168, tflops: 1297, speedup: 1.2 },
  { groups: 4, rows: 8192, out: 7168, in: 2048, tflops: 1099, speedup: 1.2 },
  { groups: 8, rows: 4096, out: 4096, in: 7168, tflops: 1288, speedup: 1.2 },
  { groups: 8, rows: 4096, out: 7168, in: 2048, tflops: 1093, speedup: 1.1 },
];

/** FlashAttention's README charts, H100, causal, head dim 128, 4K: FA3 forward; FA2 forward, and forward and backward. */
export const flashAttentionTflops = { forward3: 579, forward2: 319, both2: 294 } as const;

export function assumptionsOf(cluster: Cluster): readonly Assumption[] {
  const { efficiency, device } = cluster;
  const isFile = cluster.origin === "file";
  const percent = (share: number): string => `${(share * 100).toFixed(1)} %`;
  const rate = (value: number): string => `${formatQuantity(value, "B")}/s`;
  const given = (source: string): string => (isFile ? "the cluster's file" : source);
  const reached = (name: string, key: keyof Efficiency, source: string): Assumption => ({
    name,
    value: percent(efficiency[key]),
    source: !isFile
      ? source
      : efficiency[key] === hopperEfficiency[key]
        ? `taken over from Hopper, not of this device: ${source}`
        : given(source),
  });
  const peaks = [device.bf16Flops, ...(device.fp8Flops === null ? [] : [device.fp8Flops])];
  return [
    {
      name: device.fp8Flops === null ? "peak of BF16" : "peaks of BF16 and FP8",
      value: peaks.map((flops) => `${(flops / 1e12).toFixed(0)} TFLOP/s`).join(", "),
      source: given("NVIDIA's data sheet of the H100 SXM, dense"),
    },
    {
      name: "memory bandwidth",
      value: rate(device.memoryBandwidth),
      source: given("NVIDIA's data sheet of the H100 SXM"),
    },
    reached(
      "products, of peak beside their bytes",
      "matmul",
      "DeepGEMM's table with its speed-ups undone: the kernels of the training run",
    ),
    reached(
      "attention forward, of BF16 peak",
      "attentionForward",
      "FlashAttention 3, H100, causal, head dim 128, 4K: 579 TFLOPS",
    ),
    reached(
      "attention backward, of BF16 peak",
      "attentionBackward",
      "the same times FlashAttention 2's ratio of backward to forward on an H100, 0.894",
    ),
    reached(
      "passes that move and convert, of memory bandwidth",
      "memory",
      "DeepGEMM's thinnest products: 2,668 of 3,350 GB/s",
    ),
    {
      name: "multiprocessors that compute beside the all-to-all",
      value: percent(shareComputing(device)),
      source: given("report 3.2.2: 20 of 132 communicate"),
    },
    {
      name: "between nodes, per device and direction",
      value: rate(cluster.interNodeBandwidth),
      source: given("400 Gb/s; DeepEP measures 50 to 51 at EP 64"),
    },
    {
      name: "inside a node, per device and direction",
      value: rate(cluster.intraNodeBandwidth),
      source: given("0.8 of nominal, as DeepEP measures on an H800"),
    },
    {
      name: "latency of a hand-over between nodes",
      value: `${(cluster.interNodeLatency * 1e6).toFixed(1)} us`,
      source: given("InfiniBand across leaves, 64 B: arXiv 2505.09343"),
    },
    { name: "load of the experts", value: "even", source: "assumed: what imbalance costs is not published" },
    { name: "gaps between kernels", value: "none", source: "assumed" },
  ];
}
