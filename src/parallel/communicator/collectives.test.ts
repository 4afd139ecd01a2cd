import { describe, expect, test } from "vitest";
import { normals } from "../../../test/support/random.ts";
import { onRanks, type RankBackend, rankBackends } from "../../../test/support/ranks.ts";
import type { Tensor } from "../../tensor/index.ts";
import {
  allGather,
  allToAll,
  allToAllRows,
  barrier,
  broadcast,
  postAllGather,
  postAllToAll,
} from "./collectives.ts";
import type { Communicator } from "./communicator.ts";
import { broadcastJson, gatherJson } from "./json.ts";
import { sumInOrder, treeSum, treeSumTo } from "./sums.ts";

const sizes = [1, 2, 3, 4, 5, 6, 7, 8];
const numbers = async (tensor: Tensor): Promise<number[]> => Array.from(await tensor.read());
const f32 = Math.fround;

/** What each rank brings: numbers whose sum depends on the order of additions. */
function brought(rank: number, n: number): number[] {
  return Array.from(normals(n, 17 + rank), f32);
}

/** The tree as a person would write it: halves of the next power of two, rounded at every addition. */
function treeOf(values: readonly number[]): number {
  if (values.length === 1) return values[0]!;
  const half = 2 ** (Math.ceil(Math.log2(values.length)) - 1);
  return f32(treeOf(values.slice(0, half)) + treeOf(values.slice(half)));
}

describe.each(rankBackends)("collectives over %s ranks", (backend) => {
  test.each(sizes)("allGather and allToAll move every row to its place, on %i ranks", async (size) => {
    const results = await onRanks(backend, size, async (communicator) => {
      const { rank, device } = communicator;
      const x = device.from([rank, 100 + rank], [2], "f32");
      const table = device.from(
        Array.from({ length: size }, (_, to) => 10 * rank + to),
        [size, 1],
        "i32",
      );
      return [await numbers(allGather(communicator, x)), await numbers(allToAll(communicator, table))];
    });
    const ranks = Array.from({ length: size }, (_, rank) => rank);
    for (const [rank, [gathered, exchanged]] of results.entries()) {
      expect(gathered).toEqual(ranks.flatMap((from) => [from, 100 + from]));
      expect(exchanged).toEqual(ranks.map((from) => 10 * from + rank));
    }
  });

  test.each(sizes)(
    "allToAllRows moves runs whose lengths only the queue knows, on %i ranks",
    async (size) => {
      // Rank a has (a + 2 b) mod 3 rows for rank b: some runs are empty.
      const rowsFor = (from: number, to: number): number => (from + 2 * to) % 3;
      const offsetsOf = (counts: readonly number[]): number[] => {
        const offsets = [0];
        for (const count of counts) offsets.push(offsets.at(-1)! + count);
        return offsets;
      };
      const ranks = Array.from({ length: size }, (_, rank) => rank);
      const results = await onRanks(backend, size, async (communicator) => {
        const { rank, device } = communicator;
        const capacity = 3 * size;
        const out = offsetsOf(ranks.map((to) => rowsFor(rank, to)));
        const rows = ranks.flatMap((to) =>
          Array.from({ length: rowsFor(rank, to) }, (_, i) => [100 * rank + 10 * to + i, 1]),
        );
        const x = device.from(
          Object.assign(new Float32Array(2 * capacity), rows.flat()),
          [capacity, 2],
          "f32",
        );
        const y = device.from(new Float32Array(2 * capacity).fill(-1), [capacity, 2], "f32");
        allToAllRows(
          communicator,
          { x, offsets: device.from(out, [size + 1], "i32") },
          {
            x: y,
            offsets: device.from(offsetsOf(ranks.map((from) => rowsFor(from, rank))), [size + 1], "i32"),
          },
        );
        return numbers(y);
      });
      for (const [rank, found] of results.entries()) {
        const wanted = ranks.flatMap((from) =>
          Array.from({ length: rowsFor(from, rank) }, (_, i) => [100 * from + 10 * rank + i, 1]),
        );
        const padding = new Array<number>(6 * size - 2 * wanted.length).fill(-1);
        expect(found).toEqual([...wanted.flat(), ...padding]);
      }
    },
  );

  test.each(sizes)("broadcast reaches every rank from every root, on %i ranks", async (size) => {
    const results = await onRanks(backend, size, async (communicator) => {
      const { rank, device } = communicator;
      const found: number[] = [];
      for (let root = 0; root < size; root++) {
        const x = device.from([rank === root ? 7 + root : -1], [1], "f32");
        broadcast(communicator, x, root);
        found.push(...(await numbers(x)));
      }
      return found;
    });
    for (const found of results) expect(found).toEqual(Array.from({ length: size }, (_, root) => 7 + root));
  });

  test.each(sizes)("sums have the bits of their order, on %i ranks", async (size) => {
    const n = 13;
    const inputs = Array.from({ length: size }, (_, rank) => brought(rank, n));
    const columns = Array.from({ length: n }, (_, i) => inputs.map((values) => values[i]!));
    const byTree = columns.map(treeOf);
    const inOrder = columns.map((values) => values.reduce((sum, value) => f32(sum + value)));
    const results = await onRanks(backend, size, async (communicator) => {
      const { rank, device } = communicator;
      const [tree, order, at] = [0, 1, 2].map(() => device.from(inputs[rank]!, [n], "f32"));
      treeSum(communicator, tree!);
      sumInOrder(communicator, order!);
      treeSumTo(communicator, at!, size - 1);
      return [await numbers(tree!), await numbers(order!), await numbers(at!)];
    });
    for (const [rank, [tree, order, at]] of results.entries()) {
      expect(tree).toEqual(byTree);
      expect(order).toEqual(inOrder);
      expect(at).toEqual(rank === size - 1 ? byTree : inputs[rank]);
    }
  });

  test("sums of fewer numbers than ranks, and of none, are sums too", async () => {
    const results = await onRanks(backend, 5, async (communicator) => {
      const [few, none] = [
        communicator.device.from([1, 2], [2], "f32"),
        communicator.device.temporary([0], "f32"),
      ];
      treeSum(communicator, few);
      treeSum(communicator, none);
      sumInOrder(communicator, none);
      return numbers(few);
    });
    for (const sum of results) expect(sum).toEqual([5, 10]);
  });

  test.each(sizes)("host values reach every rank, on %i ranks", async (size) => {
    const value = { name: "ø, 日本", list: [1, 2.5, null], nested: { yes: true } };
    const results = await onRanks(backend, size, async (communicator) => {
      const { rank } = communicator;
      const root = size - 1;
      return [
        await broadcastJson(communicator, rank === root ? value : null, root),
        await gatherJson(communicator, { rank, text: "x".repeat(7 * rank) }),
      ];
    });
    const all = Array.from({ length: size }, (_, rank) => ({ rank, text: "x".repeat(7 * rank) }));
    for (const result of results) expect(result).toEqual([value, all]);
  });

  test("a posted collective gives the same while other ops run in between", async () => {
    const step = (communicator: Communicator, overlaps: boolean): Tensor[] => {
      const { rank, device } = communicator;
      const x = device.from([rank + 0.5], [1], "f32");
      const table = device.from([rank, rank + 10, rank + 20], [3], "f32");
      if (!overlaps) return [allGather(communicator, x), allToAll(communicator, table)];
      const gathering = postAllGather(communicator, x);
      const moving = postAllToAll(communicator, table);
      for (let i = 0; i < 20; i++) device.from([i], [1], "f32");
      moving.wait();
      gathering.wait();
      return [gathering.y, moving.y];
    };
    const [whole, parts] = [false, true].map((overlaps) =>
      onRanks(backend, 3, (communicator) => Promise.all(step(communicator, overlaps).map(numbers))),
    );
    expect(await parts).toEqual(await whole);
  });

  test("nobody passes a barrier before all have come", async () => {
    const order: string[] = [];
    await onRanks(backend, 4, async (communicator) => {
      await new Promise((resolve) => setTimeout(resolve, 20 * communicator.rank));
      order.push("comes");
      await barrier(communicator);
      order.push("passes");
    });
    expect(order).toEqual([...new Array<string>(4).fill("comes"), ...new Array<string>(4).fill("passes")]);
  });

  test("whatever is exchanged, no memory is kept", async () => {
    const kept = await onRanks(backend, 3, async (communicator) => {
      const { device } = communicator;
      const before = device.arena.liveBytes;
      {
        using _scope = device.scope();
        const x = device.from([1, 2, 3], [3, 1], "f32");
        treeSum(communicator, allToAll(communicator, x));
        broadcast(communicator, x, 1);
      }
      await gatherJson(communicator, communicator.rank);
      await barrier(communicator);
      return device.arena.liveBytes - before;
    });
    expect(kept).toEqual([0, 0, 0]);
  });
});

test.runIf(rankBackends.includes("native"))("both backends give the same bits", async () => {
  const run = (backend: RankBackend): Promise<Uint8Array[]> =>
    onRanks(backend, 6, async (communicator) => {
      const x = communicator.device.from(brought(communicator.rank, 1000), [1000], "f32");
      treeSum(communicator, x);
      return x.readBytes();
    });
  expect(await run("native")).toEqual(await run("reference"));
});

describe("what no collective can do", () => {
  test("is refused: sums of what has too few bits", async () => {
    const asking = onRanks("reference", 2, async (communicator) =>
      treeSum(communicator, communicator.device.temporary([2], "bf16")),
    );
    await expect(asking).rejects.toThrow(/a sum over ranks of bf16/);
  });

  test.each([2, -1, 0.5])("a root that is no rank is refused: %d", async (root) => {
    for (const collective of [broadcast, treeSumTo]) {
      const asking = onRanks("reference", 2, async (communicator) =>
        collective(communicator, communicator.device.temporary([2], "f32"), root),
      );
      await expect(asking).rejects.toThrow(new RegExp(`the root is rank ${root} of 2`));
    }
  });

  test("a table that has not a row for each rank is refused", async () => {
    const asking = onRanks("reference", 2, async (communicator) =>
      allToAll(communicator, communicator.device.temporary([3, 1], "f32")),
    );
    await expect(asking).rejects.toThrow(/allToAll: rows of x: 3 where 2 are wanted/);
  });
});
