/** Serving on paper: units, what they hold, how fast a token can be, what EPLB makes of measured loads. */
import { formatBytes, formatCount } from "../../base/index.ts";
import type { ModelConfig } from "../../model/index.ts";
import {
  balanceExperts,
  boundBandwidths,
  type Cluster,
  decodeReadSeconds,
  type ExpertBalance,
  type ExpertLoads,
  outputTokenBound,
  planServing,
  publishedBound,
  type ServingPlan,
  servingUnits,
} from "../../planner/index.ts";
import { table } from "./table.ts";

/** Of the production service, February 2025. */
const CONTEXT_TOKENS = 4989;

export interface ServingReport {
  readonly units: readonly ServingPlan[];
  readonly bounds: readonly {
    readonly network: string;
    readonly secondsPerToken: number;
    readonly tokensPerSecond: number;
    /** With the hidden size rounded to 7,000 as in the publication. */
    readonly publishedSecondsPerToken: number;
  }[];
  readonly balance: readonly ExpertBalance[];
}

export function servingReport(
  config: ModelConfig,
  cluster: Cluster,
  loads: ExpertLoads | null,
): ServingReport {
  const units = servingUnits.map((unit) => planServing(config, cluster, unit));
  const networks = [
    ...boundBandwidths,
    { name: `${cluster.name} between nodes`, bandwidth: cluster.interNodeBandwidth },
  ].filter(({ bandwidth }, i, all) => all.findIndex((one) => one.bandwidth === bandwidth) === i);
  return {
    units,
    bounds: networks.map(({ name, bandwidth }) => {
      const load = { tokens: publishedBound.tokens, bandwidth };
      const { secondsPerToken, tokensPerSecond } = outputTokenBound(config, load);
      const rounded = outputTokenBound({ ...config, hiddenSize: publishedBound.hiddenSize }, load);
      return {
        network: name,
        secondsPerToken,
        tokensPerSecond,
        publishedSecondsPerToken: rounded.secondsPerToken,
      };
    }),
    balance:
      loads === null
        ? []
        : servingUnits
            .filter(({ name }) => name.startsWith("production"))
            .map((unit) => balanceExperts(config, loads, unit)),
  };
}

export function servingText(
  model: string,
  config: ModelConfig,
  cluster: Cluster,
  report: ServingReport,
): string[] {
  const ms = (seconds: number): string => `${(seconds * 1000).toFixed(2)} ms`;
  const unitRows = report.units.map((plan) => [
    plan.unit.name,
    `${plan.unit.nodes} x ${plan.unit.devices / plan.unit.nodes}`,
    `EP${plan.unit.devices}`,
    plan.isEven ? String(plan.expertsPerDevice) : `${plan.expertsPerDevice.toFixed(2)} (uneven)`,
    formatBytes(plan.weightBytes),
    plan.fits ? formatCount(plan.cacheTokensPerDevice) : "does not fit",
    ms(
      decodeReadSeconds(plan, cluster.device, {
        requests: publishedBound.tokens,
        contextTokens: CONTEXT_TOKENS,
      }),
    ),
  ]);
  const isV3 = config.hiddenSize === 7168;
  return [
    `${model} served by ${cluster.device.name}: ${formatBytes(report.units[0]!.cacheBytesPerToken)} of cache a token, ${formatBytes(cluster.device.memoryBytes)} a device`,
    "",
    "Units",
    ...table([["", "nodes", "experts", "a device", "weights", "tokens of cache", "read once"], ...unitRows]),
    `  read once: weights, and the cache of ${publishedBound.tokens} requests of ${CONTEXT_TOKENS} tokens, at the memory's peak`,
    "",
    `Least time of an output token, ${publishedBound.tokens} tokens a micro-batch: the all-to-all alone, FP8 out and BF16 back`,
    ...report.bounds.map(
      (bound) =>
        `  ${bound.network}: ${ms(bound.secondsPerToken)}, ${Math.round(bound.tokensPerSecond)} tokens/s${isV3 ? ` (${ms(bound.publishedSecondsPerToken)} with the hidden size rounded to 7,000 as published)` : ""}`,
    ),
    ...report.balance.flatMap(balanceLines),
    ...(report.balance.length === 0
      ? ["", "Balance of experts: give loads with --loads FILE, tokens by layer and expert"]
      : []),
  ];
}

function balanceLines({ unit, isHierarchical, before, after, mostCopies }: ExpertBalance): string[] {
  const worst = (values: readonly number[]): string => Math.max(...values).toFixed(2);
  const mean = (values: readonly number[]): string =>
    (values.reduce((sum, value) => sum + value, 0) / values.length).toFixed(2);
  return [
    "",
    `EPLB, ${unit.name}: ${isHierarchical ? "groups of experts stay on a node" : "all devices are one pool"}`,
    ...table([
      ["", "mean of layers", "worst layer"],
      ["busiest device over the mean, in order without copies", mean(before), worst(before)],
      ["  with copies, placed by EPLB", mean(after), worst(after)],
      ["copies of the most copied expert", mean(mostCopies), String(Math.max(...mostCopies))],
    ]),
  ];
}
