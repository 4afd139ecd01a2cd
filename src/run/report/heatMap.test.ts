import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { heatMap, heatMapLegend, levelOf, relativeLoads } from "./heatMap.ts";

/** Paints the paths of a map back into a grid of levels. */
function painted(svg: string, numExperts: number, numColumns: number): number[][] {
  const grid = Array.from({ length: numExperts }, () => new Array<number>(numColumns).fill(4));
  for (const [, level, d] of svg.matchAll(/<path class="h(\d)" d="([^"]+)"/g)) {
    for (const [, x, y, width] of d!.matchAll(/M(\d+) (\d+)h(\d+)v1h-\d+z/g)) {
      for (let column = Number(x); column < Number(x) + Number(width); column++) {
        expect(grid[Number(y)]![column]).toBe(4); // no cell is painted twice
        grid[Number(y)]![column] = Number(level);
      }
    }
  }
  return grid;
}

describe("levelOf", () => {
  test.each([
    [0, 0],
    [0.5, 1],
    [0.95, 4],
    [1, 4],
    [1.049, 4],
    [1.05, 5],
    [1.6, 8],
    [9, 8],
  ])("a load of %f is level %i", (load, level) => expect(levelOf(load)).toBe(level));
});

describe("heatMap", () => {
  const loads = [
    [1, 1, 1.7, 1.7, 0.2],
    [0.6, 0.6, 0.6, 1.2, 1],
    [1, 1, 1, 1, 1],
  ];
  const map = { title: "layer 1 & 2", loads, firstStep: 1, lastStep: 500 };

  test("paints every cell in the level of its load", () => {
    expect(painted(heatMap(map), 3, 5)).toEqual(loads.map((row) => row.map(levelOf)));
  });

  test("paints any grid back into the levels it was made of", () => {
    const row = fc.array(fc.double({ min: 0, max: 3, noNaN: true }), { minLength: 7, maxLength: 7 });
    fc.assert(
      fc.property(fc.array(row, { minLength: 1, maxLength: 20 }), (grid) => {
        expect(painted(heatMap({ ...map, loads: grid }), grid.length, 7)).toEqual(
          grid.map((one) => one.map(levelOf)),
        );
      }),
    );
  });

  test("paints runs of equal cells as one rectangle", () => {
    const wide = heatMap({ ...map, loads: [new Array<number>(1000).fill(2)] });
    expect(wide).toContain('d="M0 0h1000v1h-1000z"');
  });

  test("names its axes and both ends of each", () => {
    const svg = heatMap(map);
    for (const text of [">expert<", ">step<", ">0<", ">2<", ">1<", ">250<", ">500<"])
      expect(svg).toContain(text);
    expect(svg).toContain("layer 1 &amp; 2");
  });

  test("is empty without steps", () => {
    expect(heatMap({ ...map, loads: [] })).toBe("");
  });
});

describe("heatMapLegend", () => {
  test("explains all nine levels", () => {
    const legend = heatMapLegend();
    expect(legend.match(/class="h\d"/g)).toHaveLength(9);
    expect(legend).toContain("below 0.5");
    expect(legend).toContain("0.95–1.05");
    expect(legend).toContain("above 1.6");
  });
});

describe("relativeLoads", () => {
  test("adds neighbouring steps into a column and divides by the mean", () => {
    const counts = [
      [6, 2],
      [2, 2],
      [0, 4],
      [1, 3],
      [5, 5],
    ];
    expect(relativeLoads(counts, 3)).toEqual([
      [8 / 6, 1 / 4, 1],
      [4 / 6, 7 / 4, 1],
    ]);
  });

  test("keeps to the number of columns", () => {
    const counts = Array.from({ length: 1001 }, () => [1, 1, 1]);
    const loads = relativeLoads(counts, 120);
    expect(loads[0]!.length).toBeLessThanOrEqual(120);
    expect(loads.flat().every((load) => load === 1)).toBe(true);
  });

  test("a step in which nothing was routed counts as even", () => {
    expect(relativeLoads([[0, 0]], 10)).toEqual([[1], [1]]);
    expect(relativeLoads([], 10)).toEqual([]);
  });
});
