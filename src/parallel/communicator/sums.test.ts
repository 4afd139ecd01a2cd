import { expect, test } from "vitest";
import { normals } from "../../../test/support/random.ts";
import { onRanks } from "../../../test/support/ranks.ts";
import { treeSum, treeSumTo } from "./sums.ts";

type Add = (x: number[], y: number[]) => number[];
const add: Add = (x, y) => x.map((value, i) => Math.fround(value + y[i]!));
const N = 11;
const [a, b, c, d, e, f, g, h, i] = Array.from({ length: 9 }, (_, rank) =>
  Array.from(normals(N, 71 + rank), Math.fround),
) as [number[], number[], number[], number[], number[], number[], number[], number[], number[]];
const four = add(add(a, b), add(c, d));
const eight = add(four, add(add(e, f), add(g, h)));

/** By hand, for 1 to 9 ranks. */
const trees = [
  a,
  add(a, b),
  add(add(a, b), c),
  four,
  add(four, e),
  add(four, add(e, f)),
  add(four, add(add(e, f), g)),
  eight,
  add(eight, i),
];
const inputs = [a, b, c, d, e, f, g, h, i];

test.each(trees.map((sum, index) => [index + 1, sum] as const))(
  "the sum over %i ranks has the bits of the tree written by hand, on all of them and at any root",
  async (ranks, tree) => {
    const found = await onRanks("reference", ranks, async (communicator) => {
      const mine = inputs[communicator.rank]!;
      const everywhere = communicator.device.from(mine, [N], "f32");
      treeSum(communicator, everywhere);
      const at: number[][] = [];
      for (let root = 0; root < ranks; root++) {
        const x = communicator.device.from(mine, [N], "f32");
        treeSumTo(communicator, x, root);
        at.push(Array.from(await x.read()));
      }
      return { everywhere: Array.from(await everywhere.read()), at };
    });
    for (const [rank, { everywhere, at }] of found.entries()) {
      expect(everywhere).toEqual(tree);
      expect(at).toEqual(found.map((_, root) => (root === rank ? tree : inputs[rank])));
    }
    // Another order would have been seen.
    if (ranks > 3) expect(inputs.slice(0, ranks).reduce(add)).not.toEqual(tree);
  },
);
