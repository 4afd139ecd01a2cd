import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { winners } from "../../../../test/oracle/moe.ts";
import { firstIndices, topIndices } from "./topIndices.ts";

describe("topIndices", () => {
  test("names the highest scores among the candidates, ascending, the lower index first in a tie", () => {
    expect(topIndices([3, 9, 9, 1, 9], [0, 1, 2, 3, 4], 2)).toEqual([1, 2]);
    expect(topIndices([3, 9, 9, 1, 9], [0, 3, 4], 2)).toEqual([0, 4]);
    expect(topIndices([0, -Infinity, -Infinity], [1, 2], 1)).toEqual([1]);
  });

  test("ranks NaN above everything", () => {
    expect(topIndices([1e300, Number.NaN, Infinity, Number.NaN], firstIndices(4), 2)).toEqual([1, 2]);
  });

  test("equals counting who beats whom", () => {
    const score = fc.oneof(fc.double({ noNaN: true }), fc.constantFrom(-1, 0, 1));
    fc.assert(
      fc.property(fc.array(score, { minLength: 1, maxLength: 30 }), fc.nat(), (scores, seed) => {
        const count = seed % (scores.length + 1);
        const all = firstIndices(scores.length);
        expect(topIndices(scores, all, count)).toEqual(winners(scores, all, count));
      }),
    );
  });
});
