/**
 * The event loop stays free: a 10 ms timer while a model trains and writes, against the same timer beside native
 * threads that only compute.
 *
 * The control takes the machine as it is: two threads of the register-peak probe, in the same second. Others may
 * disturb one of the two, so the best of a few rounds counts; a loop that is blocked is blocked in all of them.
 */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type LoadedModel, loadModel, type RunEvent, trainModel } from "../../src/index.ts";
import { NativeBackend } from "../../src/tensor/index.ts";
import { nativeIsMissing } from "../support/native.ts";
import { scratchFolder } from "../support/scratchFolder.ts";
import { type Ticks, ticksDuring } from "../support/ticks.ts";
import { writeTrainingText } from "../support/trainingText.ts";

const THREADS = 2;
/** Some two seconds: the tick that is cut off at a round's end must not count. */
const STEPS = 40;
const ROUNDS = 10;
const LEAST_SHARE = 0.97;
const LARGEST_GAP_MS = 50;

interface Round {
  readonly share: number;
  readonly p99GapMs: number;
  readonly largestGapMs: number;
}

const isFree = ({ share, largestGapMs }: Round): boolean =>
  share >= LEAST_SHARE && largestGapMs <= LARGEST_GAP_MS;

/** Rounds of control and measurement in turn, until one is good or all are done. */
async function rounds(measure: (round: number) => Promise<Ticks>): Promise<readonly Round[]> {
  const probe = new NativeBackend({ threads: THREADS, reserveBytes: 2 ** 20 });
  const done: Round[] = [];
  try {
    while (done.length < ROUNDS && !done.some(isFree)) {
      const control = await ticksDuring(() => probe.peak("f32", 1, THREADS));
      const { perSecond, p99GapMs, largestGapMs } = await measure(done.length);
      done.push({ share: perSecond / control.perSecond, p99GapMs, largestGapMs });
    }
  } finally {
    await probe.dispose();
  }
  return done;
}

function expectFree(what: string, done: readonly Round[]): void {
  const told = done.map(
    ({ share, p99GapMs, largestGapMs }) =>
      `${(100 * share).toFixed(1)} %, gaps p99 ${p99GapMs.toFixed(0)}, largest ${largestGapMs.toFixed(0)} ms`,
  );
  console.log(`event loop during ${what}: ${told.join("; ")}`);
  expect(done.some(isFree), `${what}: ${told.join("; ")}`).toBe(true);
}

const settings = ["data.tokenizer=bytes", "checkpoint.everySteps=0", "evaluate.everySteps=0"];

async function nextStep(events: AsyncIterator<RunEvent>, atLeast: number): Promise<void> {
  while (true) {
    const { value, done } = await events.next();
    if (done === true) throw new Error(`the run ended before step ${atLeast}`);
    const event: RunEvent = value;
    if (event.type === "step.completed" && event.step >= atLeast) return;
  }
}

/** Ticks between the first step and the last of a run; what comes before and after is not training. */
async function trainOnce(text: string, run: string): Promise<Ticks> {
  const options = { preset: "micro", data: [text], run, steps: STEPS, threads: THREADS, set: settings };
  const training = trainModel(options);
  const events = training[Symbol.asyncIterator]();
  await nextStep(events, 1);
  const ticks = await ticksDuring(() => nextStep(events, STEPS));
  await events.return?.();
  await training.finished;
  return ticks;
}

/** Texts one after another, for about a second. */
async function writeOnce(model: LoadedModel): Promise<Ticks> {
  return ticksDuring(async () => {
    const until = performance.now() + 1000;
    for (let seed = 0; performance.now() < until; seed++) {
      const pieces = model.generate("The whale ", { maxTokens: 100, temperature: 1, seed });
      for await (const piece of pieces) expect(piece).not.toBe("");
    }
  });
}

// Without the native addon computation runs in turns of the event loop itself, one op at a time.
describe.skipIf(nativeIsMissing)("a 10 ms timer", () => {
  test("gets 97 % of its ticks and no gap above 50 ms, in training and in generation", {
    timeout: 240_000,
  }, async () => {
    const folder = await scratchFolder();
    const text = await writeTrainingText(folder, 3000);
    expectFree("training", await rounds((round) => trainOnce(text, join(folder, `run-${round}`))));
    const model = await loadModel(join(folder, "run-0"), { threads: THREADS });
    try {
      expectFree("generation", await rounds(() => writeOnce(model)));
    } finally {
      await model.dispose();
    }
  });
});

describe("ticksDuring", () => {
  test("sees a loop that is blocked", async () => {
    const blocked = await ticksDuring(async () => {
      for (let i = 0; i < 5; i++) {
        const until = performance.now() + 80;
        while (performance.now() < until);
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    });
    expect(blocked.largestGapMs).toBeGreaterThan(LARGEST_GAP_MS);
    expect(blocked.perSecond).toBeLessThan(50);
  });
});
