import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Heap } from "./heap.ts";

describe("Heap", () => {
  test("it gives the items back in order", () => {
    fc.assert(
      fc.property(fc.array(fc.integer()), (items) => {
        const heap = new Heap((a, b) => a < b);
        for (const item of items) heap.push(item);
        expect(items.map(() => heap.pop())).toEqual([...items].sort((a, b) => a - b));
        expect(heap.pop()).toBeUndefined();
      }),
    );
  });

  test("pushing between pops keeps the order of what is left", () => {
    fc.assert(
      fc.property(fc.array(fc.option(fc.integer({ min: 0, max: 20 }), { nil: undefined })), (steps) => {
        const heap = new Heap((a, b) => a > b);
        const plain: number[] = [];
        for (const item of steps) {
          if (item === undefined) {
            plain.sort((a, b) => a - b);
            expect(heap.pop()).toBe(plain.pop());
          } else {
            heap.push(item);
            plain.push(item);
          }
        }
      }),
    );
  });
});
