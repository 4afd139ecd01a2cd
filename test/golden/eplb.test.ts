/** Our placement of experts against the released EPLB's, slot by slot. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { gpuLoads, placeExperts } from "../../src/parallel/index.ts";

interface Case {
  readonly name: string;
  readonly replicas: number;
  readonly groups: number;
  readonly nodes: number;
  readonly gpus: number;
  readonly loads: number[][];
  readonly physical_to_logical: number[][];
  readonly logical_to_physical: number[][][];
  readonly counts: number[][];
}

const cases: readonly Case[] = JSON.parse(readFileSync(join(import.meta.dirname, "eplb/cases.json"), "utf8"));

describe.each(cases)("$name", (golden) => {
  const placements = placeExperts(golden.loads, golden);

  test("every slot holds the expert that EPLB put there", () => {
    expect(placements.map(({ expertOf }) => expertOf)).toEqual(golden.physical_to_logical);
  });

  test("every expert has EPLB's copies, in its order", () => {
    const slots = golden.logical_to_physical.map((layer) =>
      layer.map((row) => row.filter((slot) => slot >= 0)),
    );
    expect(placements.map(({ slotsOf }) => slotsOf)).toEqual(slots);
    expect(placements.map(({ slotsOf }) => slotsOf.map(({ length }) => length))).toEqual(golden.counts);
  });
});

test("the GPUs of the README's example bear these loads", () => {
  const loads = [
    [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
    [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
  ];
  const perGpu = (nodes: number) =>
    placeExperts(loads, { replicas: 16, groups: 4, nodes, gpus: 8 }).map((placement, layer) =>
      gpuLoads(loads[layer]!, placement, 8),
    );
  expect(perGpu(2)).toEqual([
    [121.5, 86.5, 125, 113, 147.5, 131.5, 156, 152],
    [173, 179.5, 120.5, 172, 123, 152, 118.5, 117.5],
  ]);
  // Four groups do not divide over three nodes: all eight GPUs are one pool.
  expect(perGpu(3)).toEqual([
    [130.5, 95.5, 130, 138, 138.5, 134.5, 134, 132],
    [123, 123, 125.5, 118.5, 172, 157.5, 172, 164.5],
  ]);
});
