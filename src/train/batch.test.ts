import { describe, expect, test } from "vitest";
import { planBatch } from "./batch.ts";

const EOS = 1;
const options = { mtpDepth: 2, padId: 9, documentEnd: null };

describe("planBatch", () => {
  test("predicts the next token, and by module k the one k further on", () => {
    const tokens = Int32Array.from([10, 11, 12, 13, 14]);
    const plan = planBatch({ tokens, count: 1, rowLength: 4 }, options);
    expect(Array.from(plan.ids)).toEqual([10, 11, 12, 13]);
    expect(Array.from(plan.targets)).toEqual([11, 12, 13, 14]);
    expect(Array.from(plan.mtp[0]!.ids)).toEqual([11, 12, 13, 14]);
    expect(Array.from(plan.mtp[0]!.targets)).toEqual([12, 13, 14, -1]);
    expect(Array.from(plan.mtp[1]!.ids)).toEqual([12, 13, 14, 9]);
    expect(Array.from(plan.mtp[1]!.targets)).toEqual([13, 14, -1, -1]);
    expect([plan.valid, plan.mtp[0]!.valid, plan.mtp[1]!.valid]).toEqual([4, 3, 2]);
  });

  test("starts positions anew in every row and never looks across rows", () => {
    const tokens = Int32Array.from([10, 11, 12, 20, 21, 22]);
    const plan = planBatch({ tokens, count: 2, rowLength: 2 }, { ...options, mtpDepth: 1 });
    expect(Array.from(plan.positions)).toEqual([0, 1, 0, 1]);
    expect(Array.from(plan.seqOffsets)).toEqual([0, 2, 4]);
    expect(plan.sequences).toBe(2);
    expect(Array.from(plan.mtp[0]!.targets)).toEqual([12, -1, 22, -1]);
  });

  test("counts no target in padding, nor one that is predicted from padding", () => {
    const tokens = Int32Array.from([10, 11, EOS, -1, -1]);
    const plan = planBatch({ tokens, count: 1, rowLength: 4 }, { ...options, mtpDepth: 1 });
    expect(Array.from(plan.ids)).toEqual([10, 11, EOS, 9]);
    expect(Array.from(plan.targets)).toEqual([11, EOS, -1, -1]);
    expect(Array.from(plan.mtp[0]!.targets)).toEqual([EOS, -1, -1, -1]);
    expect(plan.valid).toBe(2);
  });

  test("predicts nothing from padding between tokens either", () => {
    const tokens = Int32Array.from([10, -1, 20, 21, 22]);
    const plan = planBatch({ tokens, count: 1, rowLength: 4 }, { ...options, mtpDepth: 1 });
    expect(Array.from(plan.targets)).toEqual([-1, -1, 21, 22]);
    expect(Array.from(plan.mtp[0]!.targets)).toEqual([20, -1, 22, -1]);
  });

  test("keeps documents apart where they are masked: attention, positions and targets", () => {
    const tokens = Int32Array.from([10, 11, EOS, 20, 21]);
    const plan = planBatch({ tokens, count: 1, rowLength: 4 }, { mtpDepth: 1, padId: 9, documentEnd: EOS });
    expect(Array.from(plan.positions)).toEqual([0, 1, 2, 0]);
    expect(Array.from(plan.targets)).toEqual([11, EOS, -1, 21]);
    expect(Array.from(plan.mtp[0]!.targets)).toEqual([EOS, -1, -1, -1]);
    expect(Array.from(plan.seqOffsets)).toEqual([0, 3, 4, 4, 4]);
    expect(plan.sequences).toBe(2);
  });
});
