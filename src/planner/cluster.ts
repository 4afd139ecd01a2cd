/**
 * A cluster as the planner sees it: devices in nodes, two networks, and how near to its peaks a device comes.
 *
 * All quantities are SI: bytes, seconds, FLOP/s, bytes per second and direction. The file that a user writes has units
 * in its keys instead (./clusterFile.ts).
 */
import { UsageError } from "../base/index.ts";

export interface Device {
  readonly name: string;
  readonly memoryBytes: number;
  /** Dense, without sparsity. */
  readonly bf16Flops: number;
  /** Null: there is no FP8, and planning with it is refused. */
  readonly fp8Flops: number | null;
  readonly memoryBandwidth: number;
  readonly multiprocessors: number;
  /** Given to the all-to-all while it runs beside computation. */
  readonly communicationMultiprocessors: number;
}

/** Shares of a device's peaks that real kernels reach. Each has its source in ./assumptions.ts. */
export interface Efficiency {
  /** Of dense FP8 or BF16 peak, once a product's own reads and writes are paid. */
  readonly matmul: number;
  /** Of BF16 peak. */
  readonly attentionForward: number;
  readonly attentionBackward: number;
  /** Of memory bandwidth, in passes that only move and convert. */
  readonly memory: number;
}

/** Chunk times that were measured on this cluster, for one model and pipeline; others are scaled by FLOPs. */
export interface ChunkTimes {
  /** A preset. */
  readonly model: string;
  /** Stages that it was split into. */
  readonly pp: number;
  readonly microBatchTokens: number;
  readonly rowLength: number;
  readonly forward: number;
  /** Full backward. */
  readonly backward: number;
  /** The weights' part of it. */
  readonly weight: number;
  readonly overlapped: number;
  /** Per step: what follows the pipeline. */
  readonly optimizer: number;
}

export interface Cluster {
  readonly name: string;
  /** Of the figures below: published ones, or a user's file. */
  readonly origin: "published" | "file";
  readonly nodes: number;
  readonly devicesPerNode: number;
  readonly device: Device;
  /** NVLink or the like. */
  readonly intraNodeBandwidth: number;
  /** InfiniBand or the like; per device. */
  readonly interNodeBandwidth: number;
  readonly interNodeLatency: number;
  readonly pricePerDeviceHour: number;
  readonly efficiency: Efficiency;
  readonly chunkTimes: ChunkTimes | null;
}

export function numDevices({ nodes, devicesPerNode }: Cluster): number {
  return nodes * devicesPerNode;
}

/** Share of a device that computes while communication runs beside it. */
export function shareComputing({ multiprocessors, communicationMultiprocessors }: Device): number {
  return (multiprocessors - communicationMultiprocessors) / multiprocessors;
}

/** Each from a published table; ./assumptions.ts derives them, its test holds the derivation. */
export const hopperEfficiency: Efficiency = {
  matmul: 0.6,
  attentionForward: 0.585,
  attentionBackward: 0.523,
  memory: 0.8,
};

/** NVIDIA's data sheet of the H100 SXM, its 80 GB as CUDA counts them; the H800 differs in NVLink (and FP64) only. */
const hopper: Omit<Device, "name"> = {
  memoryBytes: 84_943_110_144,
  bf16Flops: 989e12,
  fp8Flops: 1979e12,
  memoryBandwidth: 3.35e12,
  multiprocessors: 132,
  communicationMultiprocessors: 20,
};

/** Published per-step totals divided by a step's number of chunks: arXiv 2505.09343, PP 16, 120 micro-batches of 4,096 tokens. */
const publishedChunkTimes: ChunkTimes = {
  model: "v3-671b",
  pp: 16,
  microBatchTokens: 4096,
  rowLength: 4096,
  forward: 0.058,
  backward: 0.127,
  weight: 0.042,
  overlapped: 0.139,
  optimizer: 0.29,
};

const families: Readonly<Record<string, Pick<Cluster, "intraNodeBandwidth" | "chunkTimes">>> = {
  // 160 of 200 GB/s nominal, as DeepEP measures.
  h800: { intraNodeBandwidth: 160e9, chunkTimes: publishedChunkTimes },
  // 450 GB/s nominal, the same 0.8 of it.
  h100: { intraNodeBandwidth: 360e9, chunkTimes: null },
};

/**
 * `h800x2048`, `h100x512`: eight devices a node, one 400 Gb/s card for each.
 *
 * @throws {UsageError} if it is not such a name
 */
export function namedCluster(name: string): Cluster {
  const [, family = "", digits = ""] = /^([a-z0-9]+)x(\d+)$/i.exec(name.trim()) ?? [];
  const found = Object.hasOwn(families, family.toLowerCase()) ? families[family.toLowerCase()] : undefined;
  const devices = Number(digits);
  if (found === undefined || devices < 1 || !Number.isSafeInteger(devices)) {
    throw new UsageError(`there is no cluster ${JSON.stringify(name)}`, {
      why: `named clusters are ${Object.keys(families).join(" or ")}, an x and the number of devices`,
      fix: "write for example --cluster h800x2048, or the path of a JSON file (docs/plan.md shows one)",
      fields: { cluster: name },
    });
  }
  const devicesPerNode = Math.min(8, devices);
  if (devices % devicesPerNode !== 0) {
    throw new UsageError(`${name}: ${devices} devices do not fill nodes of ${devicesPerNode}`, {
      why: "every node of a named cluster has eight devices",
      fix: `use ${family}x${Math.ceil(devices / devicesPerNode) * devicesPerNode}, or describe your own in a JSON file`,
      fields: { cluster: name, devices },
    });
  }
  return Object.freeze({
    name: `${family.toLowerCase()}x${devices}`,
    origin: "published",
    nodes: devices / devicesPerNode,
    devicesPerNode,
    device: { name: family.toUpperCase(), ...hopper },
    interNodeBandwidth: 50e9,
    interNodeLatency: 3.7e-6,
    pricePerDeviceHour: 2,
    efficiency: hopperEfficiency,
    ...found,
  });
}
