/** What the seconds of a step mean in tokens, in shares of the peak, and in money. */
import { type ModelConfig, trainingFlopsPerToken } from "../model/index.ts";
import { type Cluster, numDevices } from "./cluster.ts";
import type { StepSize } from "./layout.ts";

/** A training run, whatever its layout. */
export interface TrainingRun {
  readonly config: ModelConfig;
  readonly cluster: Cluster;
  readonly size: StepSize;
  /** Of the whole run. */
  readonly tokens: number;
}

export interface Throughput {
  readonly tokensPerDay: number;
  /** FLOP/s of a device, the main model's alone as published: MTP and recomputation not counted. */
  readonly causalFlops: number;
  readonly nonCausalFlops: number;
  /** Shares of BF16 peak, whatever the precision. */
  readonly causalMfu: number;
  readonly nonCausalMfu: number;
  /** Of the whole run. */
  readonly deviceHours: number;
  readonly price: number;
}

/** What a step of so many seconds means: a day, a device, the whole run. */
export function throughput({ config, cluster, size, tokens }: TrainingRun, stepSeconds: number): Throughput {
  const stepTokens = size.batchRows * size.rowLength;
  const devices = numDevices(cluster);
  const perDevice = stepTokens / stepSeconds / devices;
  // Attention over the whole row is that of a row twice as long under the causal half.
  const causalFlops = perDevice * trainingFlopsPerToken(config, size.rowLength).main;
  const nonCausalFlops = perDevice * trainingFlopsPerToken(config, 2 * size.rowLength).main;
  const deviceHours = (tokens / stepTokens) * stepSeconds * (devices / 3600);
  return {
    tokensPerDay: (stepTokens * 86_400) / stepSeconds,
    causalFlops,
    nonCausalFlops,
    causalMfu: causalFlops / cluster.device.bf16Flops,
    nonCausalMfu: nonCausalFlops / cluster.device.bf16Flops,
    deviceHours,
    price: deviceHours * cluster.pricePerDeviceHour,
  };
}
