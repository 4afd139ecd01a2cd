/**
 * The events of a run that never was, as a nano run on a small machine emits them: curves with the shape and noise of
 * real ones. For tests and for looking at reports; no number here is a measurement.
 */
import { type LayerLoad, type RunEvent, type RunEventBody, stampEvent } from "../../src/base/index.ts";
import { makeRandom } from "./random.ts";

export interface SyntheticRunOptions {
  readonly steps: number;
  /** Default 50. */
  readonly evaluateEvery?: number;
  /** Default 100. */
  readonly sampleEvery?: number;
  /** Router bias step of the first 96.6 % of the run; 0 shows what happens without balancing. Default 0.008. */
  readonly gamma?: number;
  /** Default 1. */
  readonly seed?: number;
  /** Default true. */
  readonly isCompleted?: boolean;
}

const moeLayers = [1, 2, 3, 4, 5, 6]; // 6 is the MTP module's
const numExperts = 16;
const tokensPerStep = 2048;
const topK = 4;

export function* syntheticRun(options: SyntheticRunOptions): Generator<RunEvent, void, void> {
  const {
    steps,
    evaluateEvery = 50,
    sampleEvery = 100,
    gamma = 0.008,
    seed = 1,
    isCompleted = true,
  } = options;
  const random = makeRandom(seed);
  let clock = Date.parse("2026-11-21T20:00:00Z");
  const at = (seconds: number, body: RunEventBody): RunEvent => {
    clock += seconds * 1000;
    return stampEvent(body, new Date(clock));
  };
  const bias = moeLayers.map(() => new Array<number>(numExperts).fill(0));
  const taste = moeLayers.map(() => Array.from({ length: numExperts }, () => 0.7 * (random() - 0.5)));

  yield at(0, started(steps));
  yield* preparation(at);
  for (let step = 1; step <= steps; step++) {
    const part = step / steps;
    const gammaNow = part < 0.966 ? gamma : 0;
    const load = bias.map((layer, index) => route(moeLayers[index]!, layer, taste[index]!, part, random));
    yield at(0.25, completedStep(step, steps, gammaNow, load, random));
    moveBias(bias, load, gammaNow);
    if (step === 7) yield at(0, skipped(step));
    if (step % 10 === 0) yield at(0, biasEvent(step, bias));
    if (step % evaluateEvery === 0) yield at(0.4, evaluation(step, steps));
    if (step % sampleEvery === 0 || step === 20) yield at(0.3, sample(step, steps));
    if (step % 200 === 0 || step === steps) yield at(0.2, checkpoint(step, steps));
  }
  yield at(0, { type: "run.phase", name: "train", seconds: steps * 0.25 });
  if (isCompleted) {
    yield at(0, {
      type: "run.completed",
      step: steps,
      tokensSeen: steps * tokensPerStep,
      seconds: steps * 0.27,
    });
  }
}

function started(steps: number): RunEventBody {
  return {
    type: "run.started",
    runId: "2026-11-21-nano-1",
    version: "0.1.0",
    command: ["train", "--preset", "nano", "--data", "sotu", "--minutes", "5"],
    config: {
      seed: 1,
      preset: "nano",
      steps,
      model: {
        hiddenSize: 256,
        numHiddenLayers: 6,
        nRoutedExperts: 16,
        numExpertsPerTok: 4,
        nGroup: 4,
        vocabSize: 4096,
      },
      learningRate: { peak: 0.002, warmupShare: 0.03, final: 0.0002 },
      data: { source: "sotu", fimRate: 0.1, validationEvery: 20 },
    },
    environment: {
      node: "v24.21.0",
      platform: "linux",
      arch: "x64",
      cpu: "AMD EPYC 9R14",
      numCores: 2,
      numThreads: 2,
      memoryBytes: 8 * 1024 ** 3,
      backend: "native",
      kernels: "avx512-bf16",
      precision: "bf16",
      peakFlopsPerSecond: 420e9,
    },
    model: {
      numParameters: 13_600_000,
      numActiveParameters: 6_500_000,
      trainFlopsPerToken: 40_900_000,
      numHiddenLayers: 6,
      mtpDepth: 1,
      nRoutedExperts: numExperts,
    },
    memory: {
      nativeBytes: 410 * 1024 ** 2,
      rssBytes: 540 * 1024 ** 2,
      parts: { weights: 82e6, gradients: 54e6, moments: 109e6, activations: 185e6 },
    },
    plannedSteps: steps,
    plannedTokens: steps * tokensPerStep,
  };
}

function* preparation(
  at: (seconds: number, body: RunEventBody) => RunEvent,
): Generator<RunEvent, void, void> {
  yield at(2.1, {
    type: "tokenizer.trained",
    vocabSize: 4096,
    numMerges: 3832,
    bytes: 10_200_000,
    bytesPerToken: 4.1,
    seconds: 2.1,
  });
  yield at(3.2, {
    type: "data.prepared",
    source: "sotu",
    documents: 233,
    bytes: 10_761_413,
    tokens: 2_620_000,
    train: { documents: 221, bytes: 10_220_000, tokens: 2_488_000 },
    validation: { documents: 12, bytes: 541_413, tokens: 132_000 },
    vocabSize: 4096,
    seconds: 3.2,
  });
  yield at(0, { type: "run.phase", name: "tokenizer", seconds: 2.1 });
  yield at(0, { type: "run.phase", name: "data", seconds: 3.2 });
  yield at(1.4, {
    type: "baselines.measured",
    split: "validation",
    baselines: [
      { name: "order-2 byte model", bitsPerByte: 2.41 },
      { name: "xz -9e, primed with the training text", bitsPerByte: 1.83 },
      { name: "Kneser-Ney trigram over the same tokens", bitsPerByte: 1.33 },
    ],
    seconds: 1.4,
  });
  yield at(0, {
    type: "run.warning",
    what: "2 documents are shorter than one token after cleaning",
    why: "an empty document has nothing to learn from",
    fix: null,
  });
}

function lossAt(part: number): number {
  return 3.35 + 5.0 * Math.exp(-part * 14) + 1.35 * Math.exp(-part * 2.2) - 0.35 * part;
}

function learningRateAt(part: number): number {
  if (part < 0.03) return (0.002 * part) / 0.03;
  if (part < 0.7) return 0.002;
  return 0.0002 + 0.0009 * (1 + Math.cos((Math.PI * (part - 0.7)) / 0.3));
}

const bitsPerByte = (loss: number): number => loss / Math.LN2 / 4.1;

function completedStep(
  step: number,
  steps: number,
  gamma: number,
  expertLoad: readonly LayerLoad[],
  random: () => number,
): RunEventBody {
  const part = step / steps;
  const mainLoss = lossAt(part) + 0.22 * (random() - 0.5);
  const mtpLosses = [mainLoss + 0.55 + 0.1 * (random() - 0.5)];
  const mtpWeight = part < 0.67 ? 0.3 : 0.1;
  const balanceLoss = 0.0001 * (1 + random());
  const tokensPerSecond = 8200 * (1 - 0.2 * Math.exp(-step / 4)) + 500 * (random() - 0.5);
  const worst = Math.max(...expertLoad.map(({ counts }) => Math.max(...counts) / meanOf(counts) - 1));
  return {
    type: "step.completed",
    step,
    tokensSeen: step * tokensPerStep,
    loss: mainLoss + mtpWeight * mtpLosses[0]! + balanceLoss,
    mainLoss,
    mtpLosses,
    balanceLoss,
    bitsPerByte: bitsPerByte(mainLoss),
    gradNorm: 0.5 + 3 * Math.exp(-part * 20) + 0.25 * random() + (step === 333 ? 2.2 : 0),
    learningRate: learningRateAt(part),
    gamma,
    mtpWeight,
    batchRows: 8,
    tokensPerSecond,
    shareOfPeak: (tokensPerSecond * 40_900_000) / 420e9,
    seconds: tokensPerStep / tokensPerSecond,
    expertLoad,
    maxViolation: worst,
    liveBytes: 386_000_000,
    rssBytes: 541_000_000 + 1000 * step,
  };
}

const meanOf = (counts: readonly number[]): number =>
  counts.reduce((sum, count) => sum + count, 0) / counts.length;

/** Loads as a softmax over taste and bias gives them: the taste drifts, the bias works against it. */
function route(
  layer: number,
  bias: number[],
  taste: number[],
  part: number,
  random: () => number,
): LayerLoad {
  const pull = taste.map((like, expert) => {
    const drift = 0.3 * Math.sin(6 * part + expert * 1.7 + layer);
    return Math.exp(5 * (bias[expert]! + like * (0.3 + part) + 0.3 * drift) + 0.12 * (random() - 0.5));
  });
  const total = pull.reduce((sum, one) => sum + one, 0);
  return { layer, counts: pull.map((one) => Math.round((one / total) * tokensPerStep * topK)) };
}

function moveBias(bias: number[][], load: readonly LayerLoad[], gamma: number): void {
  for (const [index, { counts }] of load.entries()) {
    const mean = meanOf(counts);
    for (const [expert, count] of counts.entries()) bias[index]![expert]! += gamma * Math.sign(mean - count);
  }
}

function biasEvent(step: number, bias: readonly number[][]): RunEventBody {
  const layers = bias.map((values, index) => ({ layer: moeLayers[index]!, bias: [...values] }));
  return { type: "router.bias", step, layers };
}

function skipped(step: number): RunEventBody {
  return { type: "step.skipped", step, reason: "loss spike", tensor: null, loss: 19.4, gradNorm: null };
}

function evaluation(step: number, steps: number): RunEventBody {
  const loss = lossAt(step / steps) + 0.04;
  return {
    type: "evaluation.completed",
    step,
    split: "validation",
    loss,
    bitsPerByte: bitsPerByte(loss),
    nextNextTokenAccuracy: 0.02 + 0.21 * (1 - Math.exp(-3 * (step / steps))),
    tokens: 65_536,
    seconds: 0.4,
  };
}

function sample(step: number, steps: number): RunEventBody {
  const texts = [
    " the of and to the, in of States the that of be to. and the <b>not & a tag</b>",
    " the United States of the Government to the people of the Congress, and in the year of the",
    " people of the United States have been made by the Government, and the Congress has been authorized to make",
    " American people have a right to expect that the Government will be faithful to the great interests of the country,\nand that the Congress will take such measures as the public good requires.",
  ];
  const text = texts[Math.min(texts.length - 1, Math.floor((step / steps) * texts.length))]!;
  return { type: "sample.generated", step, prompt: "Fellow citizens, the", text };
}

function checkpoint(step: number, steps: number): RunEventBody {
  return {
    type: "checkpoint.written",
    step,
    path: `checkpoints/step-${step}`,
    bytes: 171_000_000,
    seconds: 0.2,
    reason: step === steps ? "last" : "scheduled",
  };
}
