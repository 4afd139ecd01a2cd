import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { sortedSlots } from "../../../../test/oracle/moe.ts";
import { makeOracleDevice } from "../../../../test/support/gradient.ts";
import { BackendError, ShapeError } from "../../../base/index.ts";
import { expertLoad, planDispatch } from "./dispatch.ts";

const device = makeOracleDevice();

/** Ascending expert ids of up to six tokens with K distinct experts each. */
const choices = fc.record({ E: fc.integer({ min: 1, max: 9 }), T: fc.nat({ max: 6 }) }).chain(({ E, T }) =>
  fc.integer({ min: 1, max: E }).chain((K) =>
    fc.record({
      E: fc.constant(E),
      K: fc.constant(K),
      ids: fc.array(fc.shuffledSubarray([...Array(E).keys()], { minLength: K, maxLength: K }), {
        minLength: T,
        maxLength: T,
      }),
    }),
  ),
);

async function planOf(ids: readonly (readonly number[])[], K: number, E: number) {
  using _scope = device.scope();
  const sorted = ids.map((row) => row.toSorted((a, b) => a - b));
  const plan = planDispatch(device.from(sorted.flat(), [ids.length, K], "i32"), E, 1);
  return {
    sorted,
    offsets: [...(await plan.offsets.read())],
    rows: [...(await plan.rows.read())],
    slotRow: [...(await plan.slotRow.read())],
  };
}

describe("planDispatch", () => {
  test("gives each slot a row of its own: a permutation", async () => {
    await fc.assert(
      fc.asyncProperty(choices, async ({ E, K, ids }) => {
        const { slotRow } = await planOf(ids, K, E);
        expect(slotRow.toSorted((a, b) => a - b)).toEqual([...slotRow.keys()]);
      }),
      { numRuns: 60 },
    );
  });

  test("sorts rows by expert and, within an expert, by token", async () => {
    await fc.assert(
      fc.asyncProperty(choices, async ({ E, K, ids }) => {
        const { sorted, offsets, rows, slotRow } = await planOf(ids, K, E);
        const expected = sortedSlots(sorted);
        expect(rows).toEqual(expected.map(({ token }) => token));
        expected.forEach(({ token, expert }, row) => {
          expect(offsets[expert]!).toBeLessThanOrEqual(row);
          expect(offsets[expert + 1]!).toBeGreaterThan(row);
          expect(slotRow[token * K + sorted[token]!.indexOf(expert)]).toBe(row);
        });
        expect(offsets[0]).toBe(0);
        expect(offsets[E]).toBe(rows.length);
      }),
      { numRuns: 60 },
    );
  });

  test("an expert id out of range fails the queue, not the memory", async () => {
    const broken = makeOracleDevice();
    planDispatch(broken.from([0, 4], [1, 2], "i32"), 4, 1);
    const failure = await broken.drain().catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(BackendError);
    expect(String(failure)).toContain("1 expert ids lie outside 0 to 3");
  });

  test("refuses groups that do not divide the experts", () => {
    using _scope = device.scope();
    const ids = device.from([0, 1], [1, 2], "i32");
    expect(() => planDispatch(ids, 4, 3)).toThrow(ShapeError);
    expect(() => planDispatch(ids, 4, 3)).toThrowErrorMatchingInlineSnapshot(`
      [ShapeError: planDispatch: 4 experts do not make whole groups of 3
        why: a token's answers are summed group by group, and every group has the same size
        fix: pass nRoutedExperts / nGroup]
    `);
  });
});

describe("expertLoad", () => {
  test("adds each expert's rows to what is there", async () => {
    using _scope = device.scope();
    const plan = planDispatch(device.from([0, 2, 0, 3, 2, 3], [3, 2], "i32"), 5, 5);
    const load = device.from([10, 20, 30, 40, 50], [5], "i32");
    expertLoad(plan, load);
    expertLoad(plan, load);
    expect([...(await load.read())]).toEqual([14, 20, 34, 44, 50]);
  });

  test("refuses a load of another number of experts", () => {
    using _scope = device.scope();
    const plan = planDispatch(device.from([0, 1], [1, 2], "i32"), 4, 1);
    expect(() => expertLoad(plan, device.from([0, 0], [2], "i32"))).toThrow(
      /load is \[2\], it must be \[4\]/,
    );
  });
});
