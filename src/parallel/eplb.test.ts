import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ConfigError } from "../base/index.ts";
import { balancedPacking, gpuLoads, placeExperts, type ReplicaLayout } from "./eplb.ts";

interface Legal {
  readonly loads: number[][];
  readonly layout: ReplicaLayout;
}

/** Any legal layout: both policies, with and without copies, loads of 0 among them. */
const legal: fc.Arbitrary<Legal> = fc
  .record({
    nodes: fc.integer({ min: 1, max: 4 }),
    gpusPerNode: fc.integer({ min: 1, max: 4 }),
    groupsPerNode: fc.integer({ min: 1, max: 3 }),
    groupSize: fc.integer({ min: 1, max: 4 }),
    moreSlots: fc.integer({ min: 0, max: 3 }),
    isGlobal: fc.boolean(),
    layers: fc.integer({ min: 1, max: 3 }),
  })
  .chain(({ nodes, gpusPerNode, groupsPerNode, groupSize, moreSlots, isGlobal, layers }) => {
    const groups = nodes * groupsPerNode;
    const experts = groups * groupSize;
    const gpus = nodes * gpusPerNode;
    const replicas = (Math.ceil(experts / gpus) + moreSlots) * gpus;
    const load = fc.array(fc.integer({ min: 0, max: 1000 }), { minLength: experts, maxLength: experts });
    return fc.array(load, { minLength: layers, maxLength: layers }).map((loads) => ({
      loads,
      layout: { replicas, groups, nodes: isGlobal ? groups + 1 : nodes, gpus },
    }));
  });

const nodesOf = ({ groups, nodes }: ReplicaLayout): number => (groups % nodes === 0 ? nodes : 1);

describe("placeExperts", () => {
  test("gives every expert a slot and every slot an expert, in both directions the same", () => {
    fc.assert(
      fc.property(legal, ({ loads, layout }) => {
        for (const { expertOf, slotsOf } of placeExperts(loads, layout)) {
          expect(expertOf.length).toBe(layout.replicas);
          expect(slotsOf.length).toBe(loads[0]!.length);
          expect(Math.min(...slotsOf.map(({ length }) => length))).toBeGreaterThanOrEqual(1);
          expect(slotsOf.flat().sort((a, b) => a - b)).toEqual([...expertOf.keys()]);
          for (const [expert, slots] of slotsOf.entries()) {
            expect(slots.map((slot) => expertOf[slot])).toEqual(slots.map(() => expert));
          }
        }
      }),
      { numRuns: 500 },
    );
  });

  test("keeps an expert group on one node where groups divide over the nodes", () => {
    fc.assert(
      fc.property(legal, ({ loads, layout }) => {
        const slotsPerNode = layout.replicas / nodesOf(layout);
        const groupSize = loads[0]!.length / layout.groups;
        for (const { slotsOf } of placeExperts(loads, layout)) {
          for (let group = 0; group < layout.groups; group++) {
            const slots = slotsOf.slice(group * groupSize, (group + 1) * groupSize).flat();
            expect(new Set(slots.map((slot) => Math.floor(slot / slotsPerNode))).size).toBe(1);
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  test("spreads the whole load over the GPUs", () => {
    fc.assert(
      fc.property(legal, ({ loads, layout }) => {
        for (const [layer, placement] of placeExperts(loads, layout).entries()) {
          const total = loads[layer]!.reduce((sum, load) => sum + load, 0);
          const spread = gpuLoads(loads[layer]!, placement, layout.gpus).reduce((sum, load) => sum + load, 0);
          expect(spread).toBeCloseTo(total, 6);
        }
      }),
      { numRuns: 200 },
    );
  });

  test("copies the busiest expert first, and again while its copies are the busiest", () => {
    const [placement] = placeExperts([[100, 60, 10, 10]], { replicas: 8, groups: 1, nodes: 1, gpus: 8 });
    // Shares after each copy: 100 -> 50 | 60 -> 30 | 50 -> 33 | 33 -> 25.
    expect(placement!.slotsOf.map(({ length }) => length)).toEqual([4, 2, 1, 1]);
  });

  test("copies the lower of two experts whose copies are equally busy, as the released program does", () => {
    const loads = [
      [6, 6, 6, 6],
      [1, 8, 4, 8],
    ];
    const counts = (replicas: number) =>
      placeExperts(loads, { replicas, groups: 1, nodes: 1, gpus: 2 }).map(({ slotsOf }) =>
        slotsOf.map(({ length }) => length),
      );
    expect(counts(6)).toEqual([
      [2, 2, 1, 1],
      [1, 2, 1, 2],
    ]);
    expect(counts(8)).toEqual([
      [2, 2, 2, 2],
      [1, 3, 2, 2],
    ]);
  });

  test("compares in float32, as the released program does", () => {
    // A third of 1 and this load are one number in float32, and the lower index wins; in doubles the load is larger.
    const third = Math.fround(1 / 3);
    expect(third).toBeGreaterThan(1 / 3);
    const [placement] = placeExperts([[1, third]], { replicas: 5, groups: 1, nodes: 1, gpus: 1 });
    expect(placement!.slotsOf.map(({ length }) => length)).toEqual([4, 1]);
  });

  test.each<[number[][], ReplicaLayout, RegExp]>([
    [[[1, 2]], { replicas: 3, groups: 1, nodes: 1, gpus: 2 }, /3 replicas on 2 GPUs[\s\S]*give 4 replicas/],
    [[[1, 2, 3]], { replicas: 2, groups: 1, nodes: 1, gpus: 2 }, /2 replicas for 3 experts/],
    [[[1, 2, 3]], { replicas: 4, groups: 2, nodes: 1, gpus: 2 }, /3 experts in 2 groups/],
    [[[1, 2]], { replicas: 3, groups: 2, nodes: 2, gpus: 3 }, /3 GPUs on 2 nodes/],
    [[[1, Number.NaN]], { replicas: 2, groups: 1, nodes: 1, gpus: 2 }, /load of expert 1 in layer 0 is NaN/],
    [[[1, -1]], { replicas: 2, groups: 1, nodes: 1, gpus: 2 }, /load of expert 1 in layer 0 is -1/],
    [[[1, 2], [1]], { replicas: 2, groups: 1, nodes: 1, gpus: 2 }, /layer 1 has 1 loads/],
    [[], { replicas: 2, groups: 1, nodes: 1, gpus: 2 }, /there are no loads/],
    [[[1, 2]], { replicas: 2, groups: 1, nodes: 0, gpus: 2 }, /nodes is 0/],
    [[[1, 2]], { replicas: 2, groups: 1.5, nodes: 1, gpus: 2 }, /groups is 1.5/],
  ])("refuses %j on %j", (loads, layout, message) => {
    expect(() => placeExperts(loads, layout)).toThrow(ConfigError);
    expect(() => placeExperts(loads, layout)).toThrow(message);
  });
});

describe("balancedPacking", () => {
  test("puts the heaviest into the lightest pack with room", () => {
    expect(balancedPacking(Float32Array.of(1, 9, 8, 2, 7, 3), 2)).toEqual([
      [1, 5, 3],
      [2, 4, 0],
    ]);
  });

  test("leaves single items where they are", () => {
    expect(balancedPacking(Float32Array.of(1, 9, 8), 3)).toEqual([[0], [1], [2]]);
  });

  test("takes the lower number of two equals, items and packs", () => {
    expect(balancedPacking(Float32Array.of(5, 5, 5, 5), 2)).toEqual([
      [0, 2],
      [1, 3],
    ]);
  });
});
