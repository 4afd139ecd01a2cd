/** The loop over ranks: one set of hooks that do something, one verdict, one end. */
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { scratchFolder } from "../../test/support/scratchFolder.ts";
import { EOS_ID, PAD_ID, randomRows, tinyTrainConfig } from "../../test/support/tinyTraining.ts";
import { CollectiveError, NonFiniteError, type RunEventBody } from "../base/index.ts";
import { type Communicator, everyRank, inProcess } from "../parallel/index.ts";
import type { TrainConfig } from "./config.ts";
import { RowSampler } from "./data/sampler.ts";
import { Shard, writeShard } from "./data/shard.ts";
import { trainLoop } from "./loop.ts";
import { TrainSession } from "./session.ts";

const RANKS = 2;
const config = tinyTrainConfig({
  steps: 6,
  microBatchRows: 1,
  gradientShards: RANKS,
  checkpoint: { everySteps: 4, keepNewest: 1, keepEvery: 0, keepBest: false },
  evaluate: { everySteps: 2, rows: 1, lastRows: null },
  sample: { everySteps: 3, prompts: ["once"], maxTokens: 4 },
});

interface Told {
  readonly events: RunEventBody[];
  /** Steps at which `save` was called, and why. */
  readonly saved: string[];
  readonly isComplete: boolean | null;
}

interface Changes {
  readonly config?: TrainConfig;
  readonly signal?: AbortSignal;
  /** Called after every event of the first rank. */
  readonly onEvent?: (event: RunEventBody) => void;
  /** Called with every rank before its loop. */
  readonly prepare?: (session: TrainSession, rank: number) => void;
  readonly isHeldOut?: boolean;
  readonly onRows?: (rank: number, step: number) => void;
}

async function run(changes: Changes = {}): Promise<readonly Told[]> {
  const its = changes.config ?? config;
  const path = join(await scratchFolder(), "train.bin");
  await writeShard(path, randomRows(9, its, 9).tokens, its.rowLength + 1, its.model.vocabSize);
  const shard = await Shard.open(path);
  const communicators = inProcess(RANKS, { backend: "reference", limitBytes: 2 ** 28 });
  onTestFinished(async () => {
    await shard.close();
    for (const { device } of communicators) await device.dispose();
  });
  return everyRank(communicators, (communicator) => runRank(communicator, its, shard, changes));
}

async function runRank(
  communicator: Communicator,
  its: TrainConfig,
  shard: Shard,
  { signal, onEvent, prepare, onRows, isHeldOut = true }: Changes,
): Promise<Told> {
  const { rank, device } = communicator;
  const session = new TrainSession(
    device,
    its,
    { padId: PAD_ID, eosId: EOS_ID },
    { communicator, zero1: true },
  );
  session.initialize();
  prepare?.(session, rank);
  const sampler = new RowSampler(shard, its.seed);
  let step = 0;
  const told = { events: [] as RunEventBody[], saved: [] as string[] };
  const isComplete = await trainLoop({
    session,
    rows: {
      next: (count) => {
        onRows?.(rank, ++step);
        return sampler.next(count);
      },
      get position() {
        return sampler.position;
      },
      set position(position) {
        sampler.position = position;
      },
    },
    validation: isHeldOut ? { rows: randomRows(1, its, 5), bytesOf: () => 1 } : null,
    from: null,
    signal: rank === 0 && signal !== undefined ? signal : new AbortController().signal,
    hooks: {
      emit(event) {
        told.events.push(event);
        if (rank === 0) onEvent?.(event);
      },
      async save(state, reason) {
        told.saved.push(`${state.step} ${reason}`);
        return `checkpoints/step-${state.step}`;
      },
      sample: async () => "upon a time",
      resumeCommand: "minke train --resume",
      peakFlopsPerSecond: null,
      flopsPerToken: 1,
      bytesPerToken: 1,
    },
  });
  return { ...told, isComplete };
}

const kinds = ({ events }: Told): string[] => events.map(({ type }) => type);

test("the first rank alone evaluates, samples and looks at the biases; all save at the same steps", async () => {
  const [first, second] = await run();
  expect(first!.isComplete && second!.isComplete).toBe(true);
  expect(second!.saved).toEqual(first!.saved);
  expect(first!.saved).toEqual(["4 scheduled", "6 last"]);
  expect(kinds(first!)).toEqual(
    expect.arrayContaining(["evaluation.completed", "sample.generated", "router.bias"]),
  );
  expect(new Set(kinds(second!))).toEqual(new Set(["step.completed", "run.completed"]));
  const losses = ({ events }: Told): number[] =>
    events.flatMap((event) => (event.type === "step.completed" ? [event.loss] : []));
  expect(losses(second!)).toEqual(losses(first!));
});

test("a signal that comes to the first rank stops all of them after the same step, with what it needs saved", async () => {
  const controller = new AbortController();
  const [first, second] = await run({
    signal: controller.signal,
    onEvent: (event) => {
      if (event.type === "step.completed" && event.step === 2) controller.abort("SIGINT");
    },
  });
  expect([first!.isComplete, second!.isComplete]).toEqual([false, false]);
  expect(first!.saved).toEqual(["3 interrupted"]);
  expect(second!.saved).toEqual(first!.saved);
  expect(first!.events.at(-1)).toMatchObject({ type: "run.interrupted", step: 3, signal: "SIGINT" });
});

test("a signal before the first step stops all of them without a step", async () => {
  const told = await run({ signal: AbortSignal.abort("SIGINT") });
  for (const { events, saved, isComplete } of told) {
    expect({ saved, isComplete }).toEqual({ saved: [], isComplete: false });
    expect(events).toHaveLength(1);
  }
});

test("a signal during the last evaluation ends all of them as interrupted", async () => {
  const controller = new AbortController();
  const told = await run({
    signal: controller.signal,
    onEvent: (event) => {
      if (event.type === "sample.generated" && event.step === 6) controller.abort("SIGINT");
    },
  });
  for (const { saved, isComplete } of told) {
    expect(isComplete).toBe(false);
    expect(saved.at(-1)).toBe("6 interrupted");
  }
});

test("where nothing is held out, the model is not brought together for evaluations that are due", async () => {
  const assembled: number[][] = [[], []];
  const steps = [0, 0];
  const told = await run({
    isHeldOut: false,
    config: {
      ...config,
      steps: 40,
      batchRows: RANKS,
      checkpoint: { ...config.checkpoint, everySteps: 0 },
      evaluate: { ...config.evaluate, everySteps: 3 },
      sample: { ...config.sample, prompts: [] },
    },
    onRows: (rank, step) => {
      steps[rank] = step;
    },
    prepare: (session, rank) => {
      session.assemble = () => void assembled[rank]!.push(steps[rank]!);
    },
  });
  expect(told[0]!.saved).toEqual(["40 last"]);
  // For the biases every twentieth of the run, and for the last checkpoint.
  const wanted = Array.from({ length: 20 }, (_, i) => 2 * (i + 1));
  expect(assembled).toEqual([wanted, wanted]);
});

test("a rank that fails ends all of them, with its own error", async () => {
  const failed = run({
    onRows: (rank, step) => {
      if (rank === 1 && step === 3) throw new RangeError("the disk of rank 1 is gone");
    },
  });
  await expect(failed).rejects.toThrow("the disk of rank 1 is gone");
  await expect(failed).rejects.not.toBeInstanceOf(CollectiveError);
});

test("a weight that is not finite is named by all, and ends all after three steps", async () => {
  const path = "model.norm.weight";
  const spoilt = run({
    prepare: ({ factory }) => {
      const parameter = factory.parameters.find((candidate) => candidate.path === path)!;
      parameter.master.write(new Float64Array(parameter.size).fill(Number.NaN));
    },
  });
  await expect(spoilt).rejects.toBeInstanceOf(NonFiniteError);
  await expect(spoilt).rejects.toThrow(path);
});
