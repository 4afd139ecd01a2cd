import { describe, expect, test } from "vitest";
import { presetConfig } from "../model/index.ts";
import { namedCluster } from "./cluster.ts";
import {
  divisors,
  layoutProblem,
  layoutText,
  microBatchesOf,
  replicasOf,
  stagesOf,
  type TrainingLayout,
} from "./layout.ts";
import { publishedLayout, publishedStep } from "./published.ts";

const v3 = presetConfig("v3-671b");
const cluster = namedCluster("h800x2048");

function problem(change: Partial<TrainingLayout>, size = publishedStep): string | null {
  return layoutProblem(v3, cluster, { ...publishedLayout, ...change }, size)?.message ?? null;
}

describe("layoutProblem", () => {
  test("the published layout breaks no rule", () => {
    expect(problem({})).toBeNull();
  });

  test("dp times pp is the number of devices", () => {
    expect(problem({ pp: 15 })).toMatchInlineSnapshot(`
      "dp 128 times pp 15 is 1920, the cluster h800x2048 has 2048 devices
        why: every device has one place in the layout
        fix: use for example pp=16,dp=128"
    `);
  });

  test("ep divides dp", () => {
    expect(problem({ ep: 96 })).toMatchInlineSnapshot(`
      "ep 96 does not divide dp 128
        why: an expert group is a part of one stage's data-parallel ranks
        fix: use an ep that divides 128: 4, 8, 16, 32, 64, 128"
    `);
  });

  test("ep divides the experts", () => {
    expect(problem({ pp: 4, dp: 512, ep: 512 })).toMatchInlineSnapshot(`
      "ep 512 does not divide 256 experts
        why: each rank of an expert group holds equally many
        fix: use an ep that divides both: 1, 2, 4, 8, 16, 32, 64, 128, 256"
    `);
  });

  test("an expert group is whole nodes or an equal part of one", () => {
    const odd = { ...cluster, nodes: 4, devicesPerNode: 6 };
    const found = layoutProblem(
      { ...v3, nRoutedExperts: 24 },
      odd,
      { ...publishedLayout, pp: 3, dp: 8, ep: 4, schedule: "1f1b" },
      publishedStep,
    );
    expect(found?.message).toMatchInlineSnapshot(`
      "ep 4 does not fit nodes of 6 devices
        why: an expert group is whole nodes, or an equal part of one: its tokens cross between nodes once
        fix: use ep 1, 2"
    `);
  });

  test("every stage has a layer, two for each rank of DualPipeV", () => {
    expect(problem({ pp: 32, dp: 64, schedule: "dualpipev" })).toMatchInlineSnapshot(`
      "64 stages are more than the model's 61 layers
        why: a stage holds a layer at the least
        fix: use pp=30 or less"
    `);
    expect(problem({ pp: 32, dp: 64, schedule: "1f1b" })).toBeNull();
  });

  test("rows split into whole micro-batches", () => {
    expect(problem({}, { ...publishedStep, batchRows: 15_000 })).toMatchInlineSnapshot(`
      "15000 rows do not split into micro-batches of 1 on 128 data-parallel ranks
        why: every data-parallel rank takes equally many
        fix: use --batch-rows 14976, or another dp"
    `);
  });

  test("DualPipe has an even pp, an even number of micro-batches, and twice as many as ranks", () => {
    const odd = namedCluster("h800x48");
    const layout: TrainingLayout = { pp: 3, dp: 16, ep: 16, schedule: "dualpipe", microBatchRows: 1 };
    expect(layoutProblem(v3, odd, layout, publishedStep)?.message).toMatchInlineSnapshot(`
      "dualpipe cannot have pp 3: it is odd
        why: micro-batches enter at both ends and meet between the two ranks in the middle
        fix: use an even pp, or dualpipev"
    `);
    expect(problem({}, { ...publishedStep, batchRows: 128 * 33 })).toMatch(/33 micro-batches: it is odd/);
    expect(problem({}, { ...publishedStep, batchRows: 128 * 30 })).toMatch(
      /needs 32 micro-batches for pp 16, there are 30/,
    );
    expect(problem({ schedule: "zb" }, { ...publishedStep, batchRows: 128 * 30 })).toBeNull();
  });

  test("rows fit the model's context", () => {
    expect(problem({}, { ...publishedStep, rowLength: 163_840 })).toBeNull();
    expect(problem({}, { ...publishedStep, rowLength: 163_841 })).toMatch(
      /longer than the model's context[\s\S]*163840 or less/,
    );
  });

  test("FP8 needs a device that has it", () => {
    const old = { ...cluster, device: { ...cluster.device, fp8Flops: null } };
    expect(layoutProblem(v3, old, publishedLayout, publishedStep)?.message).toMatch(/--precision bf16/);
    expect(layoutProblem(v3, old, publishedLayout, { ...publishedStep, precision: "bf16" })).toBeNull();
  });
});

describe("what follows from a layout", () => {
  test("the published run has 120 micro-batches in each of 128 pipelines", () => {
    expect(microBatchesOf(publishedLayout, publishedStep)).toBe(120);
  });

  test("DualPipeV has two stages a rank; DualPipe adds gradients of both directions", () => {
    expect(stagesOf({ ...publishedLayout, schedule: "dualpipev" })).toBe(32);
    expect(stagesOf(publishedLayout)).toBe(16);
    expect(replicasOf(publishedLayout)).toBe(256);
    expect(replicasOf({ ...publishedLayout, schedule: "zb" })).toBe(128);
  });

  test("a layout reads back as it is given", () => {
    expect(layoutText(publishedLayout)).toBe("pp=16,dp=128,ep=64 dualpipe, 1 row a micro-batch");
    expect(layoutText({ ...publishedLayout, microBatchRows: 2 })).toMatch(/2 rows a micro-batch$/);
  });

  test("divisors are all of them, in order", () => {
    expect(divisors(36)).toEqual([1, 2, 3, 4, 6, 9, 12, 18, 36]);
    expect(divisors(1)).toEqual([1]);
    expect(divisors(13)).toEqual([1, 13]);
  });
});
