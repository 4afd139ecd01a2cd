/**
 * Seconds of one micro-batch in one stage: alone, with its transfers in the open, and as the forward or backward of an
 * overlapped pair, where they hide as far as the computation beside them is long enough.
 *
 * Source: DeepSeek-V3 report, section 3.2.1 and figure 4.
 */
import type { ModelConfig } from "../model/index.ts";
import type { ChunkCosts } from "../parallel/index.ts";
import { type Cluster, shareComputing } from "./cluster.ts";
import { type StepSize, stagesOf, type TrainingLayout } from "./layout.ts";
import { workSeconds } from "./roofline.ts";
import type { Spread } from "./routing.ts";
import { type Stage, splitStages } from "./stages.ts";
import { type LayerTraffic, layerTraffic, stageHandover } from "./traffic.ts";
import {
  addPhases,
  addWork,
  attentionWork,
  denseMlpWork,
  headWork,
  moeWork,
  mtpProjectionWork,
  type PhaseWork,
  type WorkSize,
} from "./work.ts";

/** What one micro-batch does in each kind of part. */
export interface PartWorks {
  readonly attention: PhaseWork;
  readonly denseMlp: PhaseWork;
  readonly moe: PhaseWork;
  readonly head: PhaseWork;
  readonly mtpProjection: PhaseWork;
}

export interface RooflineChunks {
  readonly stages: readonly Stage[];
  readonly chunks: readonly ChunkCosts[];
  /** Of `overlapped`: seconds by which transfers are longer than what hides them, by stage. */
  readonly exposed: readonly number[];
  readonly spread: Spread;
  readonly traffic: LayerTraffic;
  readonly handover: number;
  readonly works: PartWorks;
}

export function rooflineChunks(
  config: ModelConfig,
  cluster: Cluster,
  layout: TrainingLayout,
  { rowLength, precision }: StepSize,
  spread: Spread,
): RooflineChunks {
  const tokens = layout.microBatchRows * rowLength;
  const size: WorkSize = { tokens, rowLength, precision, ep: layout.ep, devicesPerToken: spread.devices };
  const works: PartWorks = {
    attention: attentionWork(config, size),
    denseMlp: denseMlpWork(config, size),
    moe: moeWork(config, size),
    head: headWork(config, size),
    mtpProjection: mtpProjectionWork(config, size),
  };
  const traffic = layerTraffic(config, cluster, spread, { tokens, precision });
  // Stages are balanced for what most of a step consists of: pairs, in which transfers hide, or chunks alone.
  const isPaired = layout.schedule === "dualpipe" || layout.schedule === "dualpipev";
  const transfers = isPaired ? 0 : traffic.dispatch.seconds + traffic.combine.seconds;
  const whole = (phase: PhaseWork): number =>
    workSeconds(addWork(phase.forward, phase.backwardInput, phase.backwardWeight), cluster);
  const attention = whole(works.attention);
  const heads = 1 + config.numNextnPredictLayers;
  const moe = attention + whole(works.moe) + 2 * transfers;
  const weights = {
    dense: attention + whole(works.denseMlp),
    moe,
    tail: heads * whole(works.head) + (heads - 1) * (moe + whole(works.mtpProjection)),
  };
  const stages = splitStages(config, stagesOf(layout), weights, isPaired);
  const handover = layout.pp === 1 ? 0 : stageHandover(config, cluster, tokens);
  const timed = stages.map((stage) => stageCosts(stage, works, { cluster, traffic }));
  return {
    stages,
    chunks: timed.map(({ exposed: _, ...costs }) => costs),
    exposed: timed.map(({ exposed }) => exposed),
    spread,
    traffic,
    handover,
    works,
  };
}

interface Surroundings {
  readonly cluster: Cluster;
  readonly traffic: LayerTraffic;
}

function stageCosts(
  stage: Stage,
  works: PartWorks,
  { cluster, traffic }: Surroundings,
): ChunkCosts & { exposed: number } {
  const work = stageWork(stage, works);
  const transfers = stage.moeLayers * (traffic.dispatch.seconds + traffic.combine.seconds);
  const forward = workSeconds(work.forward, cluster) + transfers;
  const weight = workSeconds(work.backwardWeight, cluster);
  const backward = workSeconds(work.backwardInput, cluster) + transfers + weight;
  // Multiprocessors are given away only where something is sent.
  const computing = transfers > 0 ? shareComputing(cluster.device) : 1;
  const seconds = (phase: PhaseWork): number =>
    workSeconds(addWork(phase.forward, phase.backwardInput, phase.backwardWeight), cluster, computing);
  const computation = seconds(work);
  const attention = seconds(works.attention);
  const mlp = seconds(works.moe);
  // Two periods a layer: dispatches of both chunks under the experts, combines under attention. Handovers to the next
  // stage are in the simulation's latency, in every schedule alike.
  const dispatches = 2 * traffic.dispatch.seconds;
  const combines = 2 * traffic.combine.seconds;
  const exposed = stage.moeLayers * (Math.max(0, dispatches - mlp) + Math.max(0, combines - attention));
  // Where the multiprocessors given away cost more than what is hidden, the two run one after the other.
  const overlapped = Math.min(computation + exposed, forward + backward);
  return { forward, backward, weight, overlapped, exposed };
}

function stageWork(stage: Stage, works: PartWorks): PhaseWork {
  const { denseLayers, moeLayers, mtpModules, hasHead } = stage;
  const repeated = (phase: PhaseWork, times: number): PhaseWork[] =>
    Array.from({ length: times }, () => phase);
  return addPhases(
    ...repeated(works.attention, denseLayers + moeLayers),
    ...repeated(works.denseMlp, denseLayers),
    ...repeated(works.moe, moeLayers),
    ...repeated(works.head, hasHead ? 1 + mtpModules : 0),
    ...repeated(works.mtpProjection, mtpModules),
  );
}
