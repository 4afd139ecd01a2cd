/** Training in FP8 beside training in bf16: the same data, the same seeds, losses that cannot be told apart by eye. */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { trainModel } from "../../src/index.ts";
import { nativeIsMissing } from "../support/native.ts";
import { scratchFolder } from "../support/scratchFolder.ts";
import { writeTrainingText } from "../support/trainingText.ts";

const STEPS = 80;

/** Losses of the steps, and of the held-out text at the end. */
async function losses(
  precision: "bf16" | "fp8",
  set: readonly string[] = [],
): Promise<{ readonly steps: readonly number[]; readonly heldOut: number | null }> {
  const folder = await scratchFolder();
  const run = trainModel({
    preset: "micro",
    data: [await writeTrainingText(folder, 400)],
    run: join(folder, "run"),
    steps: STEPS,
    precision,
    seed: 1,
    threads: 2,
    set: ["data.tokenizer=bytes", "evaluate.everySteps=0", "sample.everySteps=0", ...set],
  });
  const steps: number[] = [];
  let heldOut: number | null = null;
  for await (const event of run) {
    if (event.type === "step.completed") steps.push(event.mainLoss);
    if (event.type === "evaluation.completed") heldOut = event.loss;
    expect(event.type).not.toBe("step.skipped");
  }
  return { steps, heldOut };
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

/** Mean over the last quarter of (L_fp8 - L_bf16) / L_bf16, and the largest distance of the smoothed curves. */
function apart(fp8: readonly number[], bf16: readonly number[]): { lastQuarter: number; curves: number } {
  const relative = fp8.map((loss, i) => loss / bf16[i]! - 1);
  const smooth = (values: readonly number[]): number[] => {
    let average = values[0]!;
    return values.map((value) => {
      average = 0.9 * average + 0.1 * value;
      return average;
    });
  };
  const [a, b] = [smooth(fp8), smooth(bf16)];
  return {
    lastQuarter: mean(relative.slice(-Math.floor(relative.length / 4))),
    curves: Math.max(...a.map((value, i) => Math.abs(value / b[i]! - 1))),
  };
}

describe.skipIf(nativeIsMissing)("a short training of micro in FP8", () => {
  test("ends where bf16 ends and goes the same way", async () => {
    const [bf16, fp8] = [await losses("bf16"), await losses("fp8")];
    console.log(apart(fp8.steps, bf16.steps), fp8.heldOut, bf16.heldOut, bf16.steps[0], bf16.steps.at(-1));
  });

  test("also with sums promoted every 16 products", async () => {
    const [bf16, fp8] = [await losses("bf16"), await losses("fp8", ["fp8.promotion=16"])];
    console.log(apart(fp8.steps, bf16.steps), fp8.heldOut, bf16.heldOut, bf16.steps[0], bf16.steps.at(-1));
  });
});
