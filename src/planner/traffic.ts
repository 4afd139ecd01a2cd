/**
 * Bytes that one device sends for one layer and one micro-batch, and the seconds they take.
 *
 * A token goes once to each node that has one of its experts, to the device of equal index there, and from it inside
 * the node; forwarding does not wait for later tokens, so the slower of the two networks sets the time.
 *
 * Source: DeepSeek-V3 report, sections 3.2.2 and 3.3.3 (FP8 dispatch, BF16 combine).
 */
import type { ModelConfig } from "../model/index.ts";
import type { Cluster } from "./cluster.ts";
import type { Spread } from "./routing.ts";

export interface Exchange {
  readonly interNodeBytes: number;
  readonly intraNodeBytes: number;
  readonly seconds: number;
}

export interface LayerTraffic {
  /** Tokens to experts; their gradients take the same way in the backward of combine. */
  readonly dispatch: Exchange;
  /** Results back; in backward the gradients of dispatch. */
  readonly combine: Exchange;
}

/** Bytes of one token on the wire. FP8 rows carry one f32 scale per 128 channels. */
export function tokenBytes(
  { hiddenSize }: ModelConfig,
  precision: "fp8" | "bf16",
): { dispatch: number; combine: number } {
  const fp8 = hiddenSize + 4 * Math.ceil(hiddenSize / 128);
  return { dispatch: precision === "fp8" ? fp8 : 2 * hiddenSize, combine: 2 * hiddenSize };
}

export function layerTraffic(
  config: ModelConfig,
  cluster: Cluster,
  spread: Spread,
  { tokens, precision }: { tokens: number; precision: "fp8" | "bf16" },
): LayerTraffic {
  const bytes = tokenBytes(config, precision);
  const exchange = (perToken: number): Exchange => {
    const interNodeBytes = tokens * spread.remoteNodes * perToken;
    const intraNodeBytes = tokens * spread.hops * perToken;
    const latency = interNodeBytes > 0 ? cluster.interNodeLatency : 0;
    const seconds =
      latency +
      Math.max(interNodeBytes / cluster.interNodeBandwidth, intraNodeBytes / cluster.intraNodeBandwidth);
    return { interNodeBytes, intraNodeBytes, seconds: intraNodeBytes + interNodeBytes > 0 ? seconds : 0 };
  };
  return { dispatch: exchange(bytes.dispatch), combine: exchange(bytes.combine) };
}

/** Seconds to hand one micro-batch's activations to the next stage: BF16, across nodes unless one node holds all. */
export function stageHandover(config: ModelConfig, cluster: Cluster, tokens: number): number {
  const bytes = 2 * tokens * config.hiddenSize;
  if (cluster.nodes === 1) return bytes / cluster.intraNodeBandwidth;
  return cluster.interNodeLatency + bytes / cluster.interNodeBandwidth;
}
