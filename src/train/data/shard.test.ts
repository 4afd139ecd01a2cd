import { readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { integers } from "../../../test/support/random.ts";
import { scratchFolder } from "../../../test/support/scratchFolder.ts";
import { DataError } from "../../base/index.ts";
import { Shard, writeShard } from "./shard.ts";

async function written(rows: Int32Array, rowWidth: number, vocabSize: number): Promise<string> {
  const path = join(await scratchFolder(), "train.bin");
  await writeShard(path, rows, rowWidth, vocabSize);
  return path;
}

async function refusal(path: string): Promise<DataError> {
  const outcome: unknown = await Shard.open(path).then(
    async (shard) => {
      await shard.close();
      return "it was opened";
    },
    (error: unknown) => error,
  );
  expect(outcome).toBeInstanceOf(DataError);
  return outcome as DataError;
}

describe("a shard", () => {
  test("gives back every row, padding included, for vocabularies of two bytes and of four", async () => {
    const sizes = fc.record({
      count: fc.integer({ min: 0, max: 6 }),
      rowWidth: fc.integer({ min: 1, max: 9 }),
      vocabSize: fc.constantFrom(2, 300, 65534, 65535, 65536, 129280),
      seed: fc.nat(),
    });
    await fc.assert(
      fc.asyncProperty(sizes, async ({ count, rowWidth, vocabSize, seed }) => {
        const rows = integers(count * rowWidth, vocabSize + 1, seed).map((id) => id - 1);
        const shard = await Shard.open(await written(rows, rowWidth, vocabSize));
        expect([shard.count, shard.rowWidth]).toEqual([count, rowWidth]);
        expect(shard.read(Array.from({ length: count }, (_, i) => i))).toEqual(rows);
        await shard.close();
      }),
      { numRuns: 40 },
    );
  });

  test("tells the highest id of a vocabulary from padding", async () => {
    for (const vocabSize of [65534, 65535, 65536]) {
      const shard = await Shard.open(await written(Int32Array.of(vocabSize - 1, -1), 2, vocabSize));
      expect(Array.from(shard.read([0]))).toEqual([vocabSize - 1, -1]);
      await shard.close();
    }
  });

  test("takes two bytes an id where the vocabulary allows it", async () => {
    const rows = new Int32Array(30);
    expect((await readFile(await written(rows, 10, 4096))).length).toBe(64 + 60);
    expect((await readFile(await written(rows, 10, 129280))).length).toBe(64 + 120);
  });

  test("reads rows in whatever order they are asked for, one twice too", async () => {
    const shard = await Shard.open(await written(Int32Array.of(1, 2, 3, 4, 5, 6), 2, 10));
    expect(Array.from(shard.read([2, 0, 2]))).toEqual([5, 6, 1, 2, 5, 6]);
    expect(shard.read([])).toEqual(new Int32Array(0));
    await shard.close();
  });

  test.each([-1, 3, 1.5, Number.NaN])("has no row %d, and does not make one up", async (row) => {
    const shard = await Shard.open(await written(Int32Array.of(1, 2, 3), 1, 10));
    expect(() => shard.read([0, row])).toThrow(/a shard of 3 rows has row/);
    await shard.close();
  });

  test("says so when it is cut while it is open", async () => {
    const path = await written(Int32Array.of(1, 2, 3, 4), 2, 10);
    const shard = await Shard.open(path);
    await truncate(path, 64 + 5);
    expect(Array.from(shard.read([0]))).toEqual([1, 2]);
    expect(() => shard.read([1])).toThrow(/ends inside row 1/);
    await shard.close();
  });
});

describe("a shard that is not what was written is refused:", () => {
  test("one that is not there", async () => {
    expect((await refusal(join(await scratchFolder(), "train.bin"))).message).toMatch(
      /cannot be opened[\s\S]*ENOENT/,
    );
  });

  test("one that is something else", async () => {
    const path = join(await scratchFolder(), "train.bin");
    for (const content of ["", "MINKEROW", "x".repeat(200)]) {
      await writeFile(path, content);
      expect((await refusal(path)).message).toMatch(/is no token shard/);
    }
  });

  test("one that is cut anywhere, or longer than it was", async () => {
    const path = await written(integers(40, 100, 1), 8, 100);
    const whole = await readFile(path);
    for (let length = 0; length < whole.length; length += 11) {
      await writeFile(path, whole.subarray(0, length));
      await refusal(path);
    }
    await writeFile(path, Buffer.concat([whole, Buffer.of(0)]));
    expect((await refusal(path)).message).toMatch(/has 145 bytes, its header promises 144/);
  });

  test("one in which any one bit is another, of the header's fields or of the rows", async () => {
    const path = await written(integers(12, 100, 1), 4, 100);
    const whole = await readFile(path);
    for (let bit = 0; bit < whole.length * 8; bit += 3) {
      if (bit >= 24 * 8 && bit < 32 * 8) continue; // reserved, holds nothing
      const bytes = Buffer.from(whole);
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      await writeFile(path, bytes);
      await refusal(path);
    }
  });

  test("one of a later version, with both versions", async () => {
    const path = await written(Int32Array.of(1), 1, 10);
    const bytes = await readFile(path);
    bytes.writeUInt32LE(2, 8);
    await writeFile(path, bytes);
    const error = await refusal(path);
    expect(error.message.replaceAll(path, "PATH")).toMatchInlineSnapshot(`
      "PATH has version 2
        why: this program reads version 1
        fix: delete the run's data/ folder: the same command prepares it anew from the same documents"
    `);
  });
});
