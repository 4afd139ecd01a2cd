/**
 * Seconds between the pipeline's end and the next step: gradients to the shards' owners, AdamW there, new weights back.
 *
 * ZeRO-1 with hierarchical collectives: inside the node first, then each device with its own share over its own card.
 * A lower bound: no start-up times, nothing waits for the slowest.
 */
import { type Cluster, numDevices } from "./cluster.ts";
import { replicasOf, type StepSize, type TrainingLayout } from "./layout.ts";
import type { StageParameters } from "./parameters.ts";

export function optimizerSeconds(
  parameters: StageParameters,
  cluster: Cluster,
  layout: TrainingLayout,
  { precision }: Pick<StepSize, "precision">,
): number {
  const { replicatedLinear, replicatedOther, experts } = parameters;
  const replicas = replicasOf(layout);
  const weight = precision === "fp8" ? 1 : 2;
  // Copies of a dense parameter share nodes; copies of an expert lie a whole expert group apart.
  const densePerNode = Math.min(layout.dp, cluster.devicesPerNode);
  const expertCopies = replicas / layout.ep;
  const copiesPerNode = Math.max(1, Math.floor(densePerNode / layout.ep));
  const dense = ring((4 + weight) * replicatedLinear + (4 + 2) * replicatedOther, replicas, densePerNode);
  const expert = ring((4 + weight) * experts, expertCopies, Math.min(copiesPerNode, expertCopies));
  const shard = (replicatedLinear + replicatedOther) / replicas + experts / expertCopies;
  // Gradient, master and both moments read, master and moments written.
  const bytes = (4 + 4 + 4 + 4 + 4) * shard;
  const update = bytes / (cluster.device.memoryBandwidth * cluster.efficiency.memory);
  const seconds = ({ intra, inter }: Transfer): number =>
    intra / cluster.intraNodeBandwidth + inter / cluster.interNodeBandwidth;
  return numDevices(cluster) === 1 ? update : seconds(dense) + seconds(expert) + update;
}

interface Transfer {
  readonly intra: number;
  readonly inter: number;
}

/** Bytes that each of `copies` devices sends for a reduce-scatter or an all-gather, `perNode` of them in each node. */
function ring(bytes: number, copies: number, perNode: number): Transfer {
  const nodes = copies / perNode;
  return {
    intra: (bytes * (perNode - 1)) / perNode,
    inter: ((bytes / perNode) * (nodes - 1)) / Math.max(nodes, 1),
  };
}
