import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { makeVector } from "../../test/support/parameters.ts";
import { normals } from "../../test/support/random.ts";
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
  const tree = new GradientTree(device, parameters);
  for (const { grad } of parameters) fill(grad!, 0);
  for (const block of blocks) {
    parameters.forEach(({ grad }, i) => {
      using _scope = device.scope();
      axpy(device.from(block[i]!, grad!.shape, "f32"), grad!, 1);
    });
    tree.addBlock();
  }
  tree.finish();
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

  test("holds no memory once it is finished", async () => {
    const device = makeDevice();
    const parameters = [makeVector(device, "w", [100], { seed: 1, dtype: "f32" })];
    const { liveBytes, liveCount } = device.arena;
    for (const count of [1, 2, 3, 8]) {
      await sumInto(
        device,
        parameters,
        Array.from({ length: count }, (_, b) => [normals(100, b)]),
      );
      expect([device.arena.liveBytes, device.arena.liveCount]).toEqual([liveBytes, liveCount]);
    }
  });

  test("holds one partial sum per level at most: three for eight blocks", () => {
    const device = makeDevice();
    const parameter = makeVector(device, "w", [1000], { seed: 1, dtype: "f32" });
    const before = device.arena.liveBytes;
    const tree = new GradientTree(device, [parameter]);
    const held = Array.from({ length: 8 }, () => {
      tree.addBlock();
      return Math.round((device.arena.liveBytes - before) / 4000);
    });
    expect(held).toEqual([1, 1, 2, 1, 2, 2, 3, 1]);
    tree.finish();
  });
});
