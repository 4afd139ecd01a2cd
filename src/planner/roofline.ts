/** Seconds of an amount of work on a device, from its peaks, the shares of them that kernels reach, and nothing else. */
import type { Cluster } from "./cluster.ts";
import type { Work } from "./work.ts";

/**
 * Products pay their bytes on top of their FLOPs: a tile's results are written when its sum is done, and what overlaps
 * with the next tile is in the efficiency.
 *
 * @param computing  share of the multiprocessors that compute; memory bandwidth does not depend on it
 */
export function workSeconds(work: Work, cluster: Cluster, computing = 1): number {
  const { device, efficiency } = cluster;
  const { bf16Flops, memoryBandwidth } = device;
  const fp8Flops = device.fp8Flops ?? bf16Flops;
  const products = work.fp8Flops / fp8Flops + work.bf16Flops / bf16Flops;
  const attention =
    work.attentionForwardFlops / efficiency.attentionForward +
    work.attentionBackwardFlops / efficiency.attentionBackward;
  const arithmetic = products / efficiency.matmul + attention / bf16Flops;
  const bytes = work.productBytes + work.passBytes / efficiency.memory;
  return arithmetic / computing + bytes / memoryBandwidth;
}
