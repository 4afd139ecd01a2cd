import fc from "fast-check";
import { expect, test } from "vitest";
import { onRanks } from "../../../test/support/ranks.ts";
import { ShapeError } from "../../base/index.ts";
import { requireSize } from "./check.ts";
import { broadcastJson, gatherJson } from "./json.ts";

const anyJson = fc.jsonValue({ stringUnit: "binary", maxDepth: 4 });

test("any JSON arrives on all ranks, from every root and from all of them", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(anyJson, { minLength: 1, maxLength: 4 }), async (values) => {
      const wanted: unknown[] = JSON.parse(JSON.stringify(values));
      const heard = await onRanks("reference", values.length, async (communicator) => {
        const mine = values[communicator.rank];
        const told: unknown[] = [];
        for (const root of values.keys()) told.push(await broadcastJson(communicator, mine, root));
        return [told, await gatherJson(communicator, mine)];
      });
      for (const found of heard) expect(found).toEqual([wanted, wanted]);
    }),
    { numRuns: 25 },
  );
});

test("140 kB beside a word, half a surrogate pair, and undefined as null arrive too", async () => {
  const values = ["鯨🐋".repeat(20_000), "\ud83d", undefined, "   "];
  const heard = await onRanks("reference", values.length, async (communicator) => [
    await broadcastJson(communicator, values[communicator.rank], 0),
    await gatherJson(communicator, values[communicator.rank]),
  ]);
  const all = values.map((value) => value ?? null);
  for (const found of heard) expect(found).toEqual([all[0], all]);
});

test("a count that is not the ranks' is refused with what it counts, what there is and what is wanted", () => {
  expect(() => requireSize("rows", 3, 3)).not.toThrow();
  expect(() => requireSize("rows of x", 2, 3)).toThrow(ShapeError);
  expect(() => requireSize("rows of x", 2, 3)).toThrow("rows of x: 2 where 3 are wanted");
});
