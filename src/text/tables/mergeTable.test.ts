import { expect, test } from "vitest";
import { MergeTable } from "./mergeTable.ts";

test("a merge's rank is its place, and a pair has one", () => {
  const merges = new MergeTable();
  for (let rank = 0; rank < 2000; rank++) expect(merges.add(rank, rank * 7, 5000 + rank)).toBe(true);
  expect(merges.add(3, 21, 9)).toBe(false);
  expect(merges.size).toBe(2000);
  expect(merges.rankOf(1500, 10500)).toBe(1500);
  expect(merges.rankOf(10500, 1500)).toBe(-1);
  expect([merges.leftOf(3), merges.rightOf(3), merges.idOf(3)]).toEqual([3, 21, 5003]);
});
