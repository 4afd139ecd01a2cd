import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { makeVector } from "../../test/support/parameters.ts";
import { normals } from "../../test/support/random.ts";
import { addByTree } from "../parallel/index.ts";
import { axpy, fill, type Parameter, QueueDevice, ReferenceBackend } from "../tensor/index.ts";
import { GradientTree } from "./gradientTree.ts";

function makeDevice(): QueueDevice {
  return new QueueDevice(new ReferenceBackend(), 2 ** 24);
}

/** Sums blocks of one number each, in f32, as a run with as many gradient shards does. */
async function treeSum(blocks: readonly number[]): Promise<number> {
  const device = makeDevice();
  const parameter = makeVector(device, "w", [1], { seed: 1, dtype: "f32" });
  await sumInto(
    device,
    [parameter],
    blocks.map((value) => [[value]]),
  );
  return (await parameter.grad!.read())[0]!;
}

/** @param blocks  of each block, the gradient of each parameter */
async function sumInto(
  device: QueueDevice,
  parameters: readonly Parameter[],
  blocks: readonly (readonly ArrayLike<number>[])[],
): Promise<void> {
  const tree = new GradientTree(device, parameters, blocks.length);
  for (const { grad } of parameters) fill(grad!, 0);
  for (const [b, block] of blocks.entries()) {
    parameters.forEach(({ grad }, i) => {
      using _scope = device.scope();
      axpy(device.from(block[i]!, grad!.shape, "f32"), grad!, 1);
    });
    tree.endBlock(b);
  }
  tree.dispose();
}

/** The definition: halves are summed apart, then added, in f32. */
function halves(values: readonly number[]): number {
  if (values.length === 1) return Math.fround(values[0]!);
  const middle = values.length / 2;
  return Math.fround(halves(values.slice(0, middle)) + halves(values.slice(middle)));
}

describe("GradientTree", () => {
  test.each([1, 2, 4, 8, 16])("sums %d blocks as halves are summed, to the bit", async (count) => {
    const numbers = fc.array(fc.float({ noNaN: true, min: -1e6, max: 1e6 }), {
      minLength: count,
      maxLength: count,
    });
    await fc.assert(
      fc.asyncProperty(numbers, async (values) => {
        expect(await treeSum(values)).toBe(halves(values) + 0);
      }),
      { numRuns: 20 },
    );
  });

  // In f32, 1e8 + 1 is 1e8: what cancels with what shows the order.
  test.each<[readonly number[], number, number]>([
    [[1e8, 1], 1e8, 1e8],
    [[1e8, 1, -1e8, 1], 0, 1],
    [[1e8, -1e8, 1, 1], 2, 2],
    [[1, 1, 1e8, -1e8], 2, 0],
    [[1e8, 1, 1, 1, -1e8, 1, 1, 1], 0, 3],
    [[1e8, -1e8, 1, 1, 1e8, -1e8, 1, 1], 4, 2],
  ])("of %j gives %d, where one after another gives %d", async (values, tree, sequential) => {
    expect(await treeSum(values)).toBe(tree);
    expect(values.reduce((sum, value) => Math.fround(sum + value), 0)).toBe(sequential);
  });

  test("gives two ranks with half of the blocks each the bits that one process gets", async () => {
    for (const count of [2, 4, 8]) {
      const values = Array.from(normals(count, count, 1e3));
      const [left, right] = [values.slice(0, count / 2), values.slice(count / 2)];
      const together = Math.fround((await treeSum(left)) + (await treeSum(right)));
      expect(await treeSum(values)).toBe(together);
    }
  });

  test("sums every element of every parameter", async () => {
    const device = makeDevice();
    const parameters = [3, 1, 17].map((size, i) =>
      makeVector(device, `w${i}`, [size], { seed: i, dtype: "f32" }),
    );
    const blocks = [0, 1, 2, 3].map((b) => parameters.map(({ size }, i) => normals(size, 10 * b + i)));
    await sumInto(device, parameters, blocks);
    for (const [i, { grad, size }] of parameters.entries()) {
      const wanted = Array.from({ length: size }, (_, k) => halves(blocks.map((block) => block[i]![k]!)));
      expect(Array.from(await grad!.read())).toEqual(wanted);
    }
  });

  test("takes a number of blocks that is no power of two: full halves first, the rest behind them", async () => {
    expect(await treeSum([1e8, 1, -1e8])).toBe(0);
    expect(await treeSum([1, 2, 3, 4, 5])).toBe(15);
    expect(await treeSum([1e8, -1e8, 1, 1, 7, 8])).toBe(17);
  });

  test("gives its memory back when it is disposed, and leaves zero gradients between its blocks", async () => {
    const device = makeDevice();
    const parameters = [makeVector(device, "w", [100], { seed: 1, dtype: "f32" })];
    const { liveBytes, liveCount } = device.arena;
    const tree = new GradientTree(device, parameters, 3);
    fill(parameters[0]!.grad!, 5);
    tree.endBlock(0);
    expect(new Set(await parameters[0]!.grad!.read())).toEqual(new Set([0]));
    tree.dispose();
    expect([device.arena.liveBytes, device.arena.liveCount]).toEqual([liveBytes, liveCount]);
  });

  test.each([
    [1, 0],
    [2, 1],
    [3, 2],
    [4, 2],
    [8, 3],
    [9, 4],
    [64, 6],
  ])("of %d blocks has room for %d partial sums, and takes no more while it works", (blocks, levels) => {
    const device = makeDevice();
    const parameter = makeVector(device, "w", [1024], { seed: 1, dtype: "f32" });
    const before = device.arena.liveBytes;
    const tree = new GradientTree(device, [parameter], blocks);
    for (let block = 0; block < blocks; block++) {
      expect((device.arena.liveBytes - before) / 4096).toBe(levels);
      tree.endBlock(block);
    }
  });
});

test("a rank's tree of 2^k blocks goes on with the ranks' sums: the bits of one process, for any number of ranks", async () => {
  for (const [ranks, blocks] of [
    [2, 4],
    [3, 4],
    [4, 2],
    [6, 1],
    [5, 2],
    [7, 1],
  ] as const) {
    const device = makeDevice();
    const values = Array.from(normals(ranks * blocks, ranks, 1e4), Math.fround);
    const own = await Promise.all(
      Array.from({ length: ranks }, (_, r) => treeSum(values.slice(r * blocks, (r + 1) * blocks))),
    );
    const sums = own.map((value) => device.from([value], [1], "f32"));
    addByTree(sums);
    expect((await sums[0]!.read())[0]).toBe(await treeSum(values));
  }
});
