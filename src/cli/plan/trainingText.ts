/** One layout's plan as a person reads it. */
import { formatBytes, formatCount, formatDuration, formatInteger, formatQuantity } from "../../base/index.ts";
import { countParameters, type ModelConfig } from "../../model/index.ts";
import {
  assumptionsOf,
  bubbleFormula,
  bubbleTable,
  type Cluster,
  layoutText,
  numDevices,
  publishedV3,
  type StepTime,
  type TrainingPlan,
} from "../../planner/index.ts";
import { pipelineLegend, pipelineText } from "./pipelineText.ts";
import { table } from "./table.ts";

export interface PlanReport {
  readonly model: string;
  readonly config: ModelConfig;
  readonly cluster: Cluster;
  readonly plan: TrainingPlan;
  readonly tokens: number;
  /** The plan is of the published run. */
  readonly isPublished: boolean;
}

const PIPELINE_WIDTH = 100;

export function trainingText(report: PlanReport): string[] {
  const { plan } = report;
  return [
    ...heading(report),
    ...plan.warnings.map((warning) => `WARNING: ${warning}`),
    "",
    ...timeTable(report),
    "",
    "Bubbles of a step",
    ...bubbleLines(report),
    "",
    `Bubbles of ${plan.roofline.stages.length} even stages with these chunks (report, table 2)`,
    ...table(bubbleRows(report)),
    "",
    "Memory of a device",
    ...memoryTable(report),
    "",
    "All-to-all of a device",
    ...trafficLines(report),
    "",
    `Pipeline, ${pipelineSource(plan)}, one line a rank: ${pipelineLegend}`,
    ...pipelineText(plan.simulation, PIPELINE_WIDTH).map((line) => `  ${line}`),
    "",
    "What the uncalibrated figures assume",
    ...assumptionLines(report.cluster),
  ];
}

/** Whose costs the drawing has, and how much of the step it is. */
export function pipelineSource({ times, pipeline, microBatches }: TrainingPlan): string {
  const costs = times[0]!.costs === "calibrated" ? "calibrated" : "uncalibrated";
  const drawn = pipeline.microBatches;
  return drawn === microBatches
    ? costs
    : `${costs}, ${formatInteger(drawn)} of ${formatInteger(microBatches)} micro-batches`;
}

export function assumptionLines(cluster: Cluster): string[] {
  return assumptionsOf(cluster).map(({ name, value, source }) => `  ${name}: ${value} (${source})`);
}

export function heading({ model, config, cluster, plan }: PlanReport): string[] {
  const { main, active } = countParameters(config);
  const { layout, size, microBatches, microBatchTokens } = plan;
  const { nodes, devicesPerNode, device } = cluster;
  return [
    `${model} on ${cluster.name}: ${formatInteger(main)} parameters, ${formatInteger(active.all)} a token; ${count(nodes, "node")} of ${devicesPerNode} ${device.name}`,
    `${layoutText(layout)}; ${formatInteger(size.batchRows)} rows of ${formatInteger(size.rowLength)} tokens a step in ${size.precision}: ${count(microBatches, "micro-batch")} of ${formatInteger(microBatchTokens)} tokens in every pipeline`,
  ];
}

function count(number: number, noun: string): string {
  return `${formatInteger(number)} ${noun}${number === 1 ? "" : noun.endsWith("ch") ? "es" : "s"}`;
}

/** The figures of a step as rows: name, one cell for each kind of costs, published. */
export function timeRows({ cluster, plan, tokens, isPublished }: PlanReport): string[][] {
  const columns = plan.times;
  const row = (name: string, of: (time: StepTime) => string, published = ""): string[] => [
    name,
    ...columns.map(of),
    ...(isPublished ? [published] : []),
  ];
  const rate = (flops: number): string => formatQuantity(flops, "FLOP/s");
  const percent = (share: number): string => `${(share * 100).toFixed(2)} %`;
  const { pricePerDeviceHour } = cluster;
  const published = publishedV3;
  const rows = [
    row("", ({ costs }) => (costs === "calibrated" ? "calibrated" : "uncalibrated"), "published"),
    row("step", ({ stepSeconds }) => seconds(stepSeconds), seconds(published.stepSeconds)),
    row("  of it the pipeline", ({ pipelineSeconds }) => seconds(pipelineSeconds)),
    row(
      "  of it the optimizer",
      (time) => seconds(time.optimizerSeconds),
      seconds(published.optimizerSeconds),
    ),
    row("tokens a day", ({ tokensPerDay }) => billions(tokensPerDay), billions(published.tokensPerDay)),
    row("rate of a device, causal", (time) => rate(time.causalFlops), rate(published.causalFlops)),
    row("rate of a device, not causal", (time) => rate(time.nonCausalFlops), rate(published.nonCausalFlops)),
    row("MFU of BF16 peak, causal", (time) => percent(time.causalMfu), percent(published.causalMfu)),
    row(
      "MFU of BF16 peak, not causal",
      (time) => percent(time.nonCausalMfu),
      percent(published.nonCausalMfu),
    ),
    row(
      `device hours for ${formatCount(tokens)} tokens`,
      ({ deviceHours }) => amount(deviceHours),
      tokens === published.tokens ? formatInteger(published.deviceHours) : "",
    ),
    row("days of the run", ({ deviceHours }) => amount(deviceHours / 24 / numDevices(cluster))),
  ];
  if (pricePerDeviceHour > 0) {
    const dollars = (price: number): string => `$${amount(price)}`;
    const known = tokens === published.tokens ? dollars(published.deviceHours * pricePerDeviceHour) : "";
    rows.push(row(`price at $${pricePerDeviceHour} an hour`, (time) => dollars(time.price), known));
  }
  if (isPublished) {
    const off = (time: StepTime): string => signed(time.stepSeconds / published.stepSeconds - 1);
    rows.splice(2, 0, row("  off the published step", off));
  }
  return rows;
}

function timeTable(report: PlanReport): string[] {
  return table(timeRows(report), "");
}

export function bubbleLines({ plan, isPublished }: PlanReport): string[] {
  const stages = plan.roofline.stages.length;
  const lines = plan.times.map((time) => {
    const { forward, backward, weight, overlapped } = time.chunk;
    const ms = (value: number): string => (value * 1000).toFixed(value < 0.001 ? 3 : 1);
    const bubbles = time.bubbleSeconds;
    const name = time.costs === "calibrated" ? "calibrated" : "uncalibrated";
    const formula = bubbleFormula(plan.layout.schedule, stages, time.chunk);
    return [
      `  ${name}: ${seconds(mean(bubbles))} on average, ${seconds(Math.min(...bubbles))} to ${seconds(Math.max(...bubbles))} by rank; the formula for even stages gives ${seconds(formula)}`,
      `    chunk of the slowest stage, ms: F ${ms(forward)}, B ${ms(backward)} (input ${ms(backward - weight)}, W ${ms(weight)}), F&B ${ms(overlapped)}`,
    ];
  });
  if (!isPublished) return lines.flat();
  const [first] = plan.times;
  const model = chunkResiduals(plan);
  const rest = publishedV3.bubbleSeconds - mean(first!.bubbleSeconds);
  return [
    ...lines.flat(),
    `  published: ${seconds(publishedV3.bubbleSeconds)}; ${seconds(rest)} of it is not explained by the schedule with even chunks (uneven stages and experts, latencies)`,
    ...(model === null ? [] : [`  uncalibrated against measured, a chunk of four MoE layers: ${model}`]),
  ];
}

/** How far the roofline is from the measured chunk: the commonest stage's times against it. */
function chunkResiduals({ times, roofline }: TrainingPlan): string | null {
  const measured = times.find(({ costs }) => costs === "calibrated")?.chunk;
  const commonest = roofline.stages.findIndex(
    ({ moeLayers, denseLayers }) => moeLayers === 4 && denseLayers === 0,
  );
  const model = roofline.chunks[commonest];
  if (measured === undefined || model === undefined) return null;
  const parts = [
    ["F", model.forward, measured.forward],
    ["input part of B", model.backward - model.weight, measured.backward - measured.weight],
    ["W", model.weight, measured.weight],
    ["F&B", model.overlapped, measured.overlapped],
  ] as const;
  return parts
    .map(([name, of, at]) => `${name} ${(of * 1000).toFixed(1)} ms (${signed(of / at - 1)})`)
    .join(", ");
}

/** Every schedule with the chunks of this plan, were its stages even. */
export function bubbleRows({ plan }: PlanReport): string[][] {
  const [first] = plan.times;
  const rows = bubbleTable(plan.roofline.stages.length, first!.chunk);
  return [
    ["", "bubble", "parameters", "chunks held", "devices"],
    ...rows.map(({ schedule, bubble, parameters, chunks, devices }) => [
      schedule,
      seconds(bubble),
      `${parameters}x`,
      String(chunks),
      String(devices),
    ]),
  ];
}

/** By owner, for the fullest rank and for the one in the middle of the order by size. */
export function memoryRows({ plan, cluster, config }: PlanReport): string[][] {
  const bySize = [...plan.memory].sort((a, b) => b.total - a.total);
  const chosen = [bySize[0]!, bySize[Math.floor(bySize.length / 2)]!];
  const ranks = chosen[0] === chosen[1] ? chosen.slice(0, 1) : chosen;
  const row = (name: string, of: (rank: (typeof ranks)[number]) => number): string[] => [
    name,
    ...ranks.map((rank) => formatBytes(of(rank))),
  ];
  const isFp8 = plan.size.precision === "fp8";
  return [
    ["", ...ranks.map(({ rank }) => `rank ${rank}`)],
    [
      `parameters, of ${billions(countParameters(config).stored)}`,
      ...ranks.map(({ rank }) => billions(plan.parametersPerRank[rank]!)),
    ],
    row(isFp8 ? "weights, FP8 with scales; embedding, head, norms BF16" : "weights, BF16", (m) => m.weights),
    row("gradients, f32", (m) => m.gradients),
    row("master weights, f32, ZeRO-1 shard", (m) => m.masters),
    row("moments, BF16, ZeRO-1 shard", (m) => m.moments),
    row(`activations, up to ${plan.peakChunks} chunks of a rank`, (m) => m.activations),
    row("workspace of what runs", (m) => m.workspace),
    row("communication buffers", (m) => m.buffers),
    row(`all, of ${formatBytes(cluster.device.memoryBytes)}`, (m) => m.total),
  ];
}

function memoryTable(report: PlanReport): string[] {
  return table(memoryRows(report));
}

export function trafficLines({ config, plan }: PlanReport): string[] {
  const { traffic, spread, exposed, chunks, handover } = plan.roofline;
  const layers = config.numHiddenLayers - config.firstKDenseReplace + config.numNextnPredictLayers;
  if (layers <= 0) return ["  none: every layer is dense"];
  if (plan.layout.ep === 1) return ["  none: ep is 1, every device has all experts of its layers"];
  const { dispatch, combine } = traffic;
  const inter = 2 * (dispatch.interNodeBytes + combine.interNodeBytes);
  const intra = 2 * (dispatch.intraNodeBytes + combine.intraNodeBytes);
  const perStep = (bytes: number): string =>
    formatBytes((bytes * layers * plan.microBatches) / plan.layout.pp);
  const ms = (value: number): string => `${(value * 1000).toFixed(2)} ms`;
  const slowest = chunks.reduce(
    (best, { overlapped }, stage) => (overlapped > chunks[best]!.overlapped ? stage : best),
    0,
  );
  const isPaired = plan.layout.schedule === "dualpipe" || plan.layout.schedule === "dualpipev";
  return [
    `  a token visits ${spread.nodes.toFixed(2)} nodes (${spread.remoteNodes.toFixed(2)} other than its own) and ${spread.devices.toFixed(2)} devices`,
    `  a layer and micro-batch, forward and backward: ${formatBytes(inter)} between nodes, ${formatBytes(intra)} inside`,
    `  a step: ${perStep(inter)} between nodes, ${perStep(intra)} inside`,
    `  dispatch ${ms(dispatch.seconds)}, combine ${ms(combine.seconds)} a layer; handover to the next stage ${ms(handover)}`,
    isPaired
      ? `  in a pair ${ms(exposed[slowest]!)} of ${ms(chunks[slowest]!.overlapped)} are transfers that nothing hides`
      : "  nothing hides it: this schedule overlaps no chunks",
  ];
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** `2,664,000`, `54.2`, `0.0123`. */
function amount(value: number): string {
  return value >= 1000 ? formatInteger(value) : String(Number(value.toPrecision(3)));
}

/** `18.67 s`, `290 ms`, `0.34 ms`; minutes and more from ten on. */
function seconds(value: number): string {
  if (value >= 600) return formatDuration(value);
  return value >= 1 ? `${value.toFixed(2)} s` : `${Number((value * 1000).toPrecision(3))} ms`;
}

/** `273B`: people say billions of tokens and parameters, not giga. */
export function billions(number: number): string {
  return formatCount(number).replace(/G$/, "B");
}

function signed(share: number): string {
  return `${share < 0 ? "-" : "+"}${Math.abs(share * 100).toFixed(1)} %`;
}
