import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { scratchFolder } from "../../test/support/scratchFolder.ts";
import { snapshot } from "../../test/support/tinyModel.ts";
import { makeSession, randomRows, tinyTrainConfig } from "../../test/support/tinyTraining.ts";
import { NonFiniteError, type RunEventBody } from "../base/index.ts";
import type { TrainConfig } from "./config.ts";
import { RowSampler } from "./data/sampler.ts";
import { Shard, writeShard } from "./data/shard.ts";
import type { EvaluationSet } from "./eval/evaluate.ts";
import { trainLoop } from "./loop.ts";
import { type LoopState, parseLoopState } from "./loopState.ts";
import { plannedRows, scheduleAt } from "./schedule.ts";
import type { TrainSession } from "./session.ts";

interface Training {
  readonly session: TrainSession;
  readonly rows: RowSampler;
  readonly events: RunEventBody[];
  readonly saved: { readonly state: LoopState; readonly reason: string }[];
  readonly prompts: string[];
  /** Called after every event. */
  onEvent: (event: RunEventBody) => void;
  run(from?: LoopState | null, signal?: AbortSignal): Promise<boolean>;
}

function loopConfig(changes: Partial<TrainConfig> = {}): TrainConfig {
  return tinyTrainConfig({
    steps: 6,
    batchRows: 2,
    microBatchRows: 1,
    checkpoint: { everySteps: 0, keepNewest: 1, keepEvery: 0, keepBest: false },
    evaluate: { everySteps: 0, rows: 1, lastRows: null },
    sample: { everySteps: 0, prompts: [], maxTokens: 4 },
    ...changes,
  });
}

async function makeTraining(
  config: TrainConfig = loopConfig(),
  validation: EvaluationSet | null = null,
): Promise<Training> {
  const path = join(await scratchFolder(), "train.bin");
  await writeShard(path, randomRows(5, config, 9).tokens, config.rowLength + 1, config.model.vocabSize);
  const session = makeSession(config);
  const shard = await Shard.open(path);
  onTestFinished(() => shard.close());
  const training: Training = {
    session,
    rows: new RowSampler(shard, config.seed),
    events: [],
    saved: [],
    prompts: [],
    onEvent: () => undefined,
    run: (from = null, signal = new AbortController().signal) =>
      trainLoop({
        session,
        rows: training.rows,
        validation,
        signal,
        from,
        hooks: {
          emit(event) {
            training.events.push(event);
            training.onEvent(event);
          },
          async save(state, reason) {
            training.saved.push({ state, reason });
            return `checkpoints/step-${state.step}`;
          },
          async sample(prompt) {
            training.prompts.push(prompt);
            return `${prompt}...`;
          },
          resumeCommand: "minke train --resume",
          peakFlopsPerSecond: null,
          flopsPerToken: 1000,
          bytesPerToken: 2,
        },
      }),
  };
  return training;
}

function ofType<T extends RunEventBody["type"]>(
  events: readonly RunEventBody[],
  type: T,
): Extract<RunEventBody, { type: T }>[] {
  return events.filter((event): event is Extract<RunEventBody, { type: T }> => event.type === type);
}

/** Spoils one number of a weight, its packed copies included. */
async function poison(
  { factory }: TrainSession,
  path: string,
  value: number = Number.NaN,
): Promise<() => void> {
  const parameter = factory.parameters.find((candidate) => candidate.path === path)!;
  const before = await parameter.master.read();
  const spoilt = Float32Array.from(before);
  spoilt[3] = value;
  parameter.master.write(spoilt);
  parameter.repack();
  return () => {
    parameter.master.write(before);
    parameter.repack();
  };
}

describe("trainLoop", () => {
  test("takes the planned steps, tells of each, and saves the last", async () => {
    const training = await makeTraining();
    expect(await training.run()).toBe(true);
    const steps = ofType(training.events, "step.completed");
    expect(steps.map(({ step, tokensSeen }) => [step, tokensSeen])).toEqual(
      [1, 2, 3, 4, 5, 6].map((step) => [step, step * 16]),
    );
    expect(training.events.at(-1)).toMatchObject({ type: "run.completed", step: 6, tokensSeen: 96 });
    expect(training.saved.map(({ state, reason }) => [state.step, reason])).toEqual([[6, "last"]]);
    expect(training.session.optimizer.updates).toBe(6);
  });

  test("tells each step's learning rate, gamma and MTP weight as scheduled, and bits per byte of the main loss", async () => {
    const training = await makeTraining();
    await training.run();
    const [first] = ofType(training.events, "step.completed");
    const { optimizer, schedule } = training.session.config;
    expect(first!.learningRate).toBeCloseTo(optimizer.learningRate / schedule.warmupSteps, 12);
    expect(first!.mtpWeight).toBe(0.3);
    expect(first!.bitsPerByte).toBeCloseTo(first!.mainLoss / Math.LN2 / 2, 12);
    expect(first!.shareOfPeak).toBeNull();
    expect(first!.expertLoad.map(({ layer }) => layer)).toEqual([1, 2]);
    expect(first!.liveBytes).toBe(training.session.device.arena.liveBytes);
  });

  test("schedules by the share of rows seen, not of steps: a growing batch makes the first steps count less", async () => {
    const config = loopConfig({
      batchRows: 4,
      schedule: { ...loopConfig().schedule, warmupSteps: 0, cosineFrom: 0, rampStart: 0.25, rampUntil: 0.8 },
    });
    const training = await makeTraining(config);
    await training.run();
    const steps = ofType(training.events, "step.completed");
    expect(steps[0]!.batchRows).toBe(1);
    expect(steps.at(-1)!.batchRows).toBe(4);
    const planned = plannedRows(config);
    for (const [i, { learningRate, batchRows, step }] of steps.entries()) {
      const seen = steps.slice(0, i).reduce((sum, earlier) => sum + earlier.batchRows, 0);
      const wanted = scheduleAt(config, { step: step - 1, share: seen / planned });
      expect([learningRate, batchRows]).toEqual([wanted.learningRate, wanted.batchRows]);
    }
  });

  test("goes through the rows epoch by epoch", async () => {
    const training = await makeTraining();
    await training.run();
    // Twelve rows drawn from five: two epochs and two rows.
    expect(training.rows.position).toEqual({ epoch: 2, row: 2 });
    expect(training.saved[0]!.state).toMatchObject({
      rowsSeen: 12,
      tokensSeen: 96,
      data: { epoch: 2, row: 2 },
    });
  });

  test("saves, evaluates and samples when it is due", async () => {
    const config = loopConfig({
      steps: 7,
      checkpoint: { everySteps: 3, keepNewest: 1, keepEvery: 0, keepBest: false },
      evaluate: { everySteps: 2, rows: 1, lastRows: null },
      sample: { everySteps: 4, prompts: ["a", "b"], maxTokens: 4 },
    });
    const validation: EvaluationSet = {
      rows: randomRows(3, config, 4),
      bytesOf: () => 3,
    };
    const training = await makeTraining(config, validation);
    await training.run();
    expect(training.saved.map(({ state, reason }) => [state.step, reason])).toEqual([
      [3, "scheduled"],
      [6, "scheduled"],
      [7, "last"],
    ]);
    const evaluations = ofType(training.events, "evaluation.completed");
    expect(evaluations.map(({ step }) => step)).toEqual([2, 4, 6, 7]);
    // The last one takes all held-out rows.
    expect(evaluations.at(-1)!.tokens).toBeGreaterThan(evaluations[0]!.tokens);
    expect(training.saved.at(-1)!.state.validationLoss).toBe(evaluations.at(-1)!.loss);
    expect(ofType(training.events, "sample.generated").map(({ step, prompt }) => [step, prompt])).toEqual([
      [1, "a"],
      [1, "b"],
      [4, "a"],
      [4, "b"],
      [7, "a"],
      [7, "b"],
    ]);
  });

  test("does not save the last step twice where a checkpoint was due there", async () => {
    const config = loopConfig({
      checkpoint: { everySteps: 2, keepNewest: 1, keepEvery: 0, keepBest: false },
    });
    const training = await makeTraining(config);
    await training.run();
    expect(training.saved.map(({ state }) => state.step)).toEqual([2, 4, 6]);
  });

  test("goes on from a state that went through JSON with the bits of a run that never stopped", async () => {
    const whole = await makeTraining();
    await whole.run();
    const stopping = new AbortController();
    const parts = await makeTraining();
    parts.onEvent = (event) => {
      if (event.type === "step.completed" && event.step === 3) stopping.abort("SIGINT");
    };
    expect(await parts.run(null, stopping.signal)).toBe(false);
    const state = parseLoopState(JSON.parse(JSON.stringify(parts.saved[0]!.state)), "state.json");
    parts.session.optimizer.updates = 99;
    parts.rows.position = { epoch: 4, row: 1 };
    expect(await parts.run(state)).toBe(true);
    expect(await snapshot(parts.session.factory)).toEqual(await snapshot(whole.session.factory));
    expect(parts.saved.at(-1)!.state).toEqual(whole.saved.at(-1)!.state);
    const losses = ({ events }: Training): number[] =>
      ofType(events, "step.completed").map(({ loss }) => loss);
    expect(losses(parts)).toEqual(losses(whole));
  });

  test("carries the last held-out loss on until there is another: by it the best checkpoint is known", async () => {
    const training = await makeTraining();
    await training.run();
    const from = { ...training.saved[0]!.state, step: 5, validationLoss: 1.5 };
    expect(await training.run(from)).toBe(true);
    expect(training.saved.at(-1)!.state.validationLoss).toBe(1.5);
  });

  test("does nothing but say so if the run it is given is complete", async () => {
    const training = await makeTraining();
    await training.run();
    const before = await snapshot(training.session.factory);
    expect(await training.run(training.saved[0]!.state)).toBe(true);
    expect(await snapshot(training.session.factory)).toEqual(before);
    expect(training.saved).toHaveLength(1);
  });
});

describe("a signal", () => {
  test("ends the run after the step that it met, with a checkpoint and the command that goes on", async () => {
    const training = await makeTraining();
    const stopping = new AbortController();
    training.onEvent = (event) => {
      if (event.type === "step.completed" && event.step === 2) stopping.abort("SIGTERM");
    };
    expect(await training.run(null, stopping.signal)).toBe(false);
    expect(training.saved.map(({ state, reason }) => [state.step, reason])).toEqual([[2, "interrupted"]]);
    expect(training.events.at(-1)).toEqual({
      type: "run.interrupted",
      step: 2,
      signal: "SIGTERM",
      checkpoint: "checkpoints/step-2",
      resume: "minke train --resume",
    });
  });

  test("in the last evaluation leaves the run unfinished: it is evaluated whole when it goes on", async () => {
    const config = loopConfig();
    const training = await makeTraining(config, { rows: randomRows(3, config, 4), bytesOf: () => 3 });
    const stopping = new AbortController();
    training.onEvent = (event) => {
      if (event.type === "step.completed" && event.step === 6) stopping.abort("SIGINT");
    };
    expect(await training.run(null, stopping.signal)).toBe(false);
    expect(ofType(training.events, "evaluation.completed")).toEqual([]);
    expect(ofType(training.events, "run.completed")).toEqual([]);
    expect(training.saved.map(({ state, reason }) => [state.step, reason])).toEqual([[6, "interrupted"]]);
    expect(await training.run(training.saved[0]!.state)).toBe(true);
    expect(ofType(training.events, "evaluation.completed")).toHaveLength(1);
  });

  test("before the first step leaves no checkpoint: there is nothing to keep", async () => {
    const training = await makeTraining();
    expect(await training.run(null, AbortSignal.abort("SIGINT"))).toBe(false);
    expect(training.saved).toEqual([]);
    expect(training.events).toMatchObject([{ type: "run.interrupted", step: 0, checkpoint: null }]);
  });
});

describe("a loss that is not finite", () => {
  const culprit = "model.layers.1.selfAttn.oProj.weight";

  test("is skipped twice; at the third in a row the run ends and names the weight that holds the NaN", async () => {
    const training = await makeTraining();
    await poison(training.session, culprit);
    const before = await snapshot(training.session.factory);
    const outcome: unknown = await training.run().catch((error: unknown) => error);
    expect(outcome).toBeInstanceOf(NonFiniteError);
    expect((outcome as Error).message).toMatchInlineSnapshot(`
      "step 3: non-finite loss, 3 steps in a row skipped
        why: model.layers.1.selfAttn.oProj.weight holds a value that is not finite
        fix: resume from the last checkpoint with a lower learning rate: --resume --set optimizer.learningRate=..."
    `);
    expect((outcome as NonFiniteError).fields).toEqual({ step: 3, tensor: culprit });
    const skipped = ofType(training.events, "step.skipped");
    expect(skipped).toEqual(
      [1, 2, 3].map((step) => ({
        type: "step.skipped",
        step,
        reason: "non-finite loss",
        tensor: culprit,
        loss: null,
        gradNorm: null,
      })),
    );
    expect(await snapshot(training.session.factory)).toEqual(before);
    expect(training.session.optimizer.updates).toBe(0);
    expect(training.saved).toEqual([]);
  });

  test("names an infinity, and a router bias, as well", async () => {
    const training = await makeTraining();
    const bias = training.session.factory.buffers[0]!;
    bias.value.write(Array.from({ length: bias.value.size }, () => Number.NaN));
    await poison(training.session, "model.norm.weight", Number.POSITIVE_INFINITY);
    await expect(training.run()).rejects.toThrow(/model\.norm\.weight holds a value that is not finite/);
  });

  test("puts off the checkpoint that is due while steps are skipped: the weights may be the broken part", async () => {
    const training = await makeTraining(
      loopConfig({ checkpoint: { everySteps: 2, keepNewest: 1, keepEvery: 0, keepBest: false } }),
    );
    const heal = await poison(training.session, culprit);
    training.onEvent = (event) => {
      if (event.type === "step.skipped" && event.step === 2) heal();
    };
    expect(await training.run()).toBe(true);
    expect(ofType(training.events, "step.skipped").map(({ step }) => step)).toEqual([1, 2]);
    expect(training.saved.map(({ state }) => state.step)).toEqual([4, 6]);
  });

  test("that passes costs its step and no more: data moves on, the optimizer's count does not", async () => {
    const training = await makeTraining();
    let heal = await poison(training.session, culprit);
    training.onEvent = (event) => {
      if (event.type !== "step.skipped" || event.step !== 2) return;
      heal();
      heal = () => undefined;
    };
    expect(await training.run()).toBe(true);
    expect(ofType(training.events, "step.skipped").map(({ step }) => step)).toEqual([1, 2]);
    expect(ofType(training.events, "step.completed").map(({ step }) => step)).toEqual([3, 4, 5, 6]);
    expect(training.saved.at(-1)!.state).toMatchObject({
      step: 6,
      updates: 4,
      rowsSeen: 12,
      tokensSeen: 96,
    });
  });
});
