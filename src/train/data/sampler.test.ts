import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { scratchFolder } from "../../../test/support/scratchFolder.ts";
import { DataError } from "../../base/index.ts";
import { uniforms } from "./random.ts";
import { type DataPosition, epochOrder, RowSampler } from "./sampler.ts";
import { Shard, writeShard } from "./shard.ts";

/** Rows of three tokens; a row's first token is its number. */
async function shardOf(count: number): Promise<Shard> {
  const path = join(await scratchFolder(), "train.bin");
  const rows = Int32Array.from({ length: 3 * count }, (_, i) => (i % 3 === 0 ? i / 3 : i % 3));
  await writeShard(path, rows, 3, 1000);
  return Shard.open(path);
}

/** The numbers of the rows that come out when they are drawn in batches of these sizes. */
async function drawn(sampler: RowSampler, batches: readonly number[]): Promise<number[]> {
  const numbers: number[] = [];
  for (const count of batches) {
    const { tokens } = sampler.next(count);
    for (let r = 0; r < count; r++) numbers.push(tokens[3 * r]!);
  }
  return numbers;
}

describe("RowSampler", () => {
  test("gives the same rows in the same order whatever the size of the batches", async () => {
    const shard = await shardOf(7);
    const sizes = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 8 });
    await fc.assert(
      fc.asyncProperty(sizes, fc.nat(), async (batches, seed) => {
        const total = batches.reduce((sum, count) => sum + count, 0);
        const one = await drawn(new RowSampler(shard, seed), batches);
        expect(one).toEqual(await drawn(new RowSampler(shard, seed), [total]));
      }),
      { numRuns: 30 },
    );
    await shard.close();
  });

  test("gives every row once in each epoch, and in another order in the next", async () => {
    const shard = await shardOf(20);
    const rows = await drawn(new RowSampler(shard, 3), [60]);
    const epochs = [rows.slice(0, 20), rows.slice(20, 40), rows.slice(40)];
    for (const epoch of epochs)
      expect(epoch.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 20 }, (_, i) => i));
    expect(epochs[1]).not.toEqual(epochs[0]);
    expect(epochs[2]).not.toEqual(epochs[1]);
    await shard.close();
  });

  test("goes on from a position that went through JSON exactly as if it had never stopped", async () => {
    const shard = await shardOf(6);
    await fc.assert(
      fc.asyncProperty(fc.nat({ max: 20 }), fc.nat(), async (before, seed) => {
        const whole = new RowSampler(shard, seed);
        await drawn(whole, before === 0 ? [] : [before]);
        const position = JSON.parse(JSON.stringify(whole.position)) as DataPosition;
        const resumed = new RowSampler(shard, seed);
        resumed.position = position;
        expect(await drawn(resumed, [3, 8])).toEqual(await drawn(whole, [11]));
        expect(resumed.position).toEqual(whole.position);
      }),
      { numRuns: 30 },
    );
    await shard.close();
  });

  test("counts rows and epochs", async () => {
    const shard = await shardOf(4);
    const sampler = new RowSampler(shard, 0);
    const positions: DataPosition[] = [sampler.position];
    for (const count of [3, 1, 1, 8]) {
      sampler.next(count);
      positions.push(sampler.position);
    }
    expect(positions).toEqual([
      { epoch: 0, row: 0 },
      { epoch: 0, row: 3 },
      { epoch: 0, row: 4 },
      { epoch: 1, row: 1 },
      { epoch: 3, row: 1 },
    ]);
    await shard.close();
  });

  test("says how long its rows are: one token less than the shard holds, the last being a target only", async () => {
    const shard = await shardOf(4);
    const rows = new RowSampler(shard, 0).next(2);
    expect([rows.count, rows.rowLength, rows.tokens.length]).toEqual([2, 2, 6]);
    await shard.close();
  });

  test("refuses a position that its data does not have", async () => {
    const shard = await shardOf(4);
    const sampler = new RowSampler(shard, 0);
    expect(() => {
      sampler.position = { epoch: 0, row: 5 };
    }).toThrow(DataError);
    sampler.position = { epoch: 2, row: 4 };
    expect(sampler.next(1).count).toBe(1);
    expect(sampler.position).toEqual({ epoch: 3, row: 1 });
    await shard.close();
  });

  test("takes a shard without rows for a bug: drawing from it would never end", async () => {
    const shard = await shardOf(0);
    expect(() => new RowSampler(shard, 0)).toThrow(/holds rows to draw from/);
    await shard.close();
  });
});

describe("epochOrder", () => {
  test("is a permutation, whatever count, seed and epoch", () => {
    fc.assert(
      fc.property(fc.nat({ max: 200 }), fc.nat(), fc.nat({ max: 1000 }), (count, seed, epoch) => {
        const order = Array.from(epochOrder(count, seed, epoch));
        expect(order.toSorted((a, b) => a - b)).toEqual(Array.from({ length: count }, (_, i) => i));
      }),
    );
  });

  test("sends each row to each place about equally often", () => {
    const [count, epochs] = [5, 2000];
    const seen = Array.from({ length: count }, () => new Array<number>(count).fill(0));
    for (let epoch = 0; epoch < epochs; epoch++)
      for (const [place, row] of epochOrder(count, 11, epoch).entries()) seen[row]![place]!++;
    // 400 expected, standard deviation 18: five of them on either side.
    for (const places of seen)
      for (const times of places) expect(Math.abs(times - epochs / count)).toBeLessThan(90);
  });

  test("depends on seed and epoch", () => {
    const order = (seed: number, epoch: number): string => epochOrder(30, seed, epoch).join();
    expect(new Set([order(0, 0), order(0, 1), order(1, 0), order(1, 1)]).size).toBe(4);
    expect(order(4, 2)).toBe(order(4, 2));
  });
});

describe("uniforms", () => {
  test("are a stream of their own for each use, seed and index, the same on every call", () => {
    const first = (seed: number, use: "shuffle" | "fim" | "split", index: number): string => {
      const next = uniforms(seed, use, index);
      return Array.from({ length: 6 }, next).join();
    };
    const streams = [
      first(0, "shuffle", 0),
      first(0, "fim", 0),
      first(0, "split", 0),
      first(1, "fim", 0),
      first(0, "fim", 1),
      // Beyond 32 bits of stream number.
      first(0, "fim", 65536),
      first(2 ** 32, "fim", 0),
    ];
    expect(new Set(streams).size).toBe(streams.length);
    expect(first(0, "fim", 1)).toBe(streams[4]);
  });

  test("lie in [0, 1) and spread evenly", () => {
    const next = uniforms(3, "split", 0);
    const values = Array.from({ length: 4000 }, next);
    expect(Math.min(...values)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...values)).toBeLessThan(1);
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    // Standard deviation of the mean: 0.0046.
    expect(Math.abs(mean - 0.5)).toBeLessThan(0.02);
    for (let tenth = 0; tenth < 10; tenth++) {
      const inside = values.filter((value) => Math.floor(value * 10) === tenth).length;
      expect(Math.abs(inside - 400)).toBeLessThan(95);
    }
  });
});
