/** What is measured: the presets in training, and a dense V3 of GPT-2's size; one timed step at a time. */
import type { OpenDevice } from "../../api/index.ts";
import { UsageError } from "../../base/index.ts";
import { type ModelConfig, maxViolation, presetConfig, trainingFlopsPerToken } from "../../model/index.ts";
import type { Tensor } from "../../tensor/index.ts";
import {
  defaultTrainConfig,
  scheduleAt,
  type Team,
  type TrainConfig,
  TrainSession,
} from "../../train/index.ts";
import type { StepFlags } from "./row.ts";

/** Names that `--preset` takes; bench/peers/torch_model.py has the same. */
export const WORKLOADS = ["micro", "nano", "mini", "dense-124m"] as const;

/**
 * A V3 without experts, of the size of GPT-2 124M: a token multiplies with 124M parameters.
 *
 * GPT-2 uses its embedding as its head; V3 has both, so that 38.6M more lie in a table that is only looked up.
 */
export function dense124m(): ModelConfig {
  return {
    ...presetConfig("micro"),
    vocabSize: 50304,
    maxPositionEmbeddings: 1024,
    hiddenSize: 768,
    numHiddenLayers: 12,
    firstKDenseReplace: 12,
    numNextnPredictLayers: 0,
    numAttentionHeads: 12,
    numKeyValueHeads: 12,
    qkNopeHeadDim: 64,
    qkRopeHeadDim: 32,
    vHeadDim: 64,
    qLoraRank: 384,
    kvLoraRank: 448,
    intermediateSize: 2048,
  };
}

/** @throws {UsageError} naming what can be measured */
export function workloadConfig(name: string, precision: TrainConfig["precision"]): TrainConfig {
  if (name === "dense-124m") {
    const config = defaultTrainConfig("micro", 1000, dense124m(), precision);
    // llm.c's demo: 4 rows of 64 tokens.
    return { ...config, preset: name, rowLength: 64, batchRows: 4, microBatchRows: 4 };
  }
  if ((WORKLOADS as readonly string[]).includes(name)) {
    return defaultTrainConfig(name, 1000, undefined, precision);
  }
  throw new UsageError(`${JSON.stringify(name)} is nothing that can be measured`, {
    why: `the models that train here are ${WORKLOADS.join(", ")}`,
    fix: "use --preset nano",
    fields: { preset: name },
  });
}

export interface TimedStep {
  /** From enqueueing to the last kernel, update included. */
  readonly seconds: number;
  /** Processor time of JavaScript's thread; null where Node cannot tell (before 23.9). */
  readonly javascriptSeconds: number | null;
  readonly loss: number;
  /** Tokens of the busiest expert of any layer over an even share; null without experts. */
  readonly busiest: number | null;
  /** When JavaScript had enqueued forward and backward, had the record, had enqueued the update; `performance.now()`. */
  readonly at: Readonly<Record<"begun" | "enqueued" | "recorded" | "committed", number>>;
}

/** What is done otherwise than the preset does it. */
export interface Variant {
  readonly change?: (config: TrainConfig) => TrainConfig;
  /**
   * Tokens visit the experts in turn, whatever the router says, so that all get equally many. What comes out means
   * nothing: this is how long a step takes under an even load.
   */
  readonly isEven?: boolean;
}

/** A model in training that takes one timed step at a time, on random tokens; a rank's share of it if there is a team. */
export class TimedTraining {
  readonly config: TrainConfig;
  readonly #opened: Pick<OpenDevice, "device">;
  readonly session: TrainSession;
  #step = 0;
  /** [T, K], the experts that are visited in turn. */
  readonly #even: Tensor | null = null;

  constructor(
    opened: Pick<OpenDevice, "device"> & { readonly team?: Team | null },
    { preset, precision }: Pick<StepFlags, "preset" | "precision">,
    { change = (config) => config, isEven = false }: Variant = {},
  ) {
    this.#opened = opened;
    this.config = change(workloadConfig(preset, precision));
    this.session = new TrainSession(opened.device, this.config, { padId: 0, eosId: 0 }, opened.team ?? null);
    this.session.initialize();
    if (isEven) this.#even = this.#evenRouting();
  }

  get tokensPerStep(): number {
    return this.config.batchRows * this.config.rowLength;
  }

  /** Model FLOPs of a step: attention causal, recomputation not counted. */
  get flopsPerStep(): number {
    return this.tokensPerStep * trainingFlopsPerToken(this.config.model, this.config.rowLength).total;
  }

  /** Weights that are trained, those shared with MTP counted once. */
  get parameters(): number {
    return this.session.factory.parameters.reduce((sum, { size }) => sum + size, 0);
  }

  async step(): Promise<TimedStep> {
    const { batchRows: count, rowLength, model } = this.config;
    const tokens = randomTokens(count * (rowLength + 1), this.#step, model.vocabSize);
    const scheduled = scheduleAt(this.config, { step: this.#step++, share: 0 });
    const before = threadSeconds();
    const begun = performance.now();
    const computing = this.session.runner.compute({ tokens, count, rowLength }, scheduled);
    const enqueued = performance.now();
    const { loss, expertLoad } = await computing;
    const recorded = performance.now();
    this.session.runner.commit(scheduled);
    const committed = performance.now();
    await this.#opened.device.drain();
    const seconds = (performance.now() - begun) / 1000;
    const after = threadSeconds();
    const javascriptSeconds = before === null || after === null ? null : after - before;
    const busiest = expertLoad.length === 0 ? null : 1 + Math.max(...expertLoad.map(maxViolation));
    return { seconds, loss, busiest, javascriptSeconds, at: { begun, enqueued, recorded, committed } };
  }

  #evenRouting(): Tensor {
    const { model } = this.session;
    const { nRoutedExperts: E, numExpertsPerTok: K } = this.config.model;
    const tokens = this.config.microBatchRows * this.config.rowLength;
    const ids = Array.from({ length: tokens }, (_, t) =>
      Array.from({ length: K }, (_, k) => (t * K + k) % E).sort((a, b) => a - b),
    );
    const expertIds = this.#opened.device.temporary([tokens, K], "i32");
    expertIds.write(ids.flat());
    for (const { mlp } of [...model.layers, ...model.mtp.map(({ layer }) => layer)]) {
      if (!("router" in mlp)) continue;
      const { router } = mlp;
      const route = router.forward.bind(router);
      router.forward = (x, pass) => ({ ...route(x, pass), expertIds });
    }
    return expertIds;
  }

  dispose(): void {
    this.#even?.dispose();
    this.session.dispose();
  }
}

function randomTokens(length: number, step: number, vocabSize: number): Int32Array {
  return Int32Array.from(
    { length },
    (_, i) => (Math.imul(i + step * 7919 + 1, 2654435761) >>> 8) % vocabSize,
  );
}

function threadSeconds(): number | null {
  if (process.threadCpuUsage === undefined) return null;
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1e6;
}

/** Largest resident set of this process so far. */
export function peakRssBytes(): number {
  return process.resourceUsage().maxRSS * 1024;
}
