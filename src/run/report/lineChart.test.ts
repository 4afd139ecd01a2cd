import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type LineChart, lineChart } from "./lineChart.ts";

const curve = (name: string, tone: "c1" | "c2", ys: readonly number[]) => ({
  name,
  tone,
  points: ys.map((y, index) => ({ x: 100 * index, y })),
});

const chart: LineChart = {
  title: "Loss <nats>",
  unit: "nats per token",
  curves: [curve("training", "c1", [9, 5, 4, 3]), curve("MTP 1", "c2", [9, 6, 5, 4])],
  format: (value) => value.toFixed(1),
};

/** All texts of the drawing, in order. */
const texts = (svg: string) => [...svg.matchAll(/<text[^>]*>([^<]*)<\/text>/g)].map(([, text]) => text);

/** The heights of the labels at the right end. */
const labelHeights = (svg: string) =>
  [...svg.matchAll(/<text class="label[^"]*" x="[\d.]+" y="([\d.]+)"/g)].map(([, y]) => Number(y));

/** Corners of the drawn curve of a class. */
function corners(svg: string, className: string): [number, number][] {
  const d = new RegExp(`<path class="${className}" d="M([^"]+)"`).exec(svg)![1]!;
  return d.split("L").map((corner) => corner.split(" ").map(Number) as [number, number]);
}

describe("lineChart", () => {
  test("has axes with round ticks and units, a legend, and the last value beside each curve", () => {
    const svg = lineChart(chart);
    expect(texts(svg)).toEqual(
      expect.arrayContaining(["2.0", "4.0", "10.0", "0", "300", "step", "nats per token"]),
    );
    expect(texts(svg)).toEqual(expect.arrayContaining(["3.0 training", "4.0 MTP 1"]));
    expect(svg.match(/class="swatch c1"><\/i>training/g)).toHaveLength(1);
    expect(svg).toContain("training ends at 3.0 at step 300");
  });

  test("draws what it is given: right is later, up is more, equal steps are equal distances", () => {
    const drawn = corners(lineChart(chart), "curve c1");
    const xs = drawn.map(([x]) => x);
    const ys = drawn.map(([, y]) => y);
    expect(xs[1]! - xs[0]!).toBeCloseTo(xs[3]! - xs[2]!, 0);
    expect(ys).toEqual(ys.toSorted((a, b) => a - b));
    // 9 to 5 is four times as far as 4 to 3.
    expect((ys[1]! - ys[0]!) / (ys[3]! - ys[2]!)).toBeCloseTo(4, 1);
  });

  test("escapes what a title or a name may hold", () => {
    const svg = lineChart({ ...chart, levels: [{ name: "a & <b>", y: 4 }] });
    expect(svg).toContain("Loss &lt;nats&gt;");
    expect(svg).toContain("4.0 a &amp; &lt;b&gt;");
    expect(svg).not.toContain("<nats>");
  });

  test.each([3, 5, 9])(
    "labels that would lie on each other around %i are pushed apart and stay inside",
    (value) => {
      const levels = Array.from({ length: 6 }, (_, index) => ({
        name: `level ${index}`,
        y: value + index / 100,
      }));
      const heights = labelHeights(lineChart({ ...chart, levels }));
      expect(heights).toHaveLength(8);
      for (const [index, y] of heights.entries()) {
        if (index > 0) expect(y - heights[index - 1]!).toBeGreaterThanOrEqual(13.9);
        expect(y).toBeGreaterThan(0);
        expect(y).toBeLessThanOrEqual(276);
      }
    },
  );

  test("says that it cuts off what is above its limit, and scales to the rest", () => {
    const svg = lineChart({ ...chart, yLimit: 6 });
    expect(svg).toContain("above 6.0 cut off");
    expect(texts(svg)).not.toContain("10.0");
    expect(lineChart({ ...chart, yLimit: 20 })).not.toContain("cut off");
  });

  test("dots carry their value as a tooltip", () => {
    const svg = lineChart({ ...chart, curves: [{ ...chart.curves[0]!, hasDots: true }] });
    expect(svg.match(/<circle/g)).toHaveLength(4);
    expect(svg).toContain("<title>training at step 100: 5.0</title>");
  });

  test("a long run stays small, and its peaks stay in it", () => {
    const ys = Array.from({ length: 100_000 }, (_, index) => (index === 77_777 ? 50 : Math.sin(index / 900)));
    const svg = lineChart({ ...chart, curves: [curve("noise", "c1", ys)] });
    expect(svg.length).toBeLessThan(20_000);
    const heights = corners(svg, "curve c1").map(([, y]) => y);
    expect(heights.filter((y) => y < 100)).toHaveLength(1);
    expect(heights.filter((y) => y > 200)).toHaveLength(heights.length - 1);
  });

  test("curves in the background are drawn, scaled for, and have no names", () => {
    const background = [
      [
        { x: 0, y: -20 },
        { x: 300, y: -20 },
      ],
    ];
    const svg = lineChart({ ...chart, background });
    expect(svg).toContain('class="faint"');
    expect(texts(svg)).toContain("-20.0");
  });

  test("whatever the values, all it draws is inside its frame", () => {
    const value = fc.oneof(
      fc.double({ min: -1e6, max: 1e6, noNaN: true }),
      fc.constantFrom(0, 1e-12, 5, 5 + Number.EPSILON * 8),
    );
    const curves = fc.array(fc.array(value, { minLength: 1, maxLength: 30 }), { minLength: 1, maxLength: 3 });
    fc.assert(
      fc.property(curves, fc.option(value, { nil: undefined }), fc.boolean(), (all, yLimit, fromZero) => {
        const named = all.map((ys, index) => ({ ...curve(`curve ${index}`, "c1", ys), hasDots: true }));
        const limit =
          yLimit === undefined ? {} : { yLimit: Math.max(yLimit, ...all.map((ys) => ys.at(-1)!)) };
        const svg = lineChart({ ...chart, curves: named, fromZero, ...limit });
        expect(svg).not.toMatch(/NaN|Infinity|undefined/);
        const drawn = [...svg.matchAll(/<path class="curve c1" d="M([^"]+)"/g)].flatMap(([, d]) =>
          d!.split("L"),
        );
        const dots = [...svg.matchAll(/<circle[^>]*cx="([\d.-]+)" cy="([\d.-]+)"/g)].map(
          ([, x, y]) => `${x} ${y}`,
        );
        for (const [x, y] of [...drawn, ...dots].map((corner) => corner.split(" ").map(Number))) {
          expect(x).toBeGreaterThanOrEqual(61.9);
          expect(x).toBeLessThanOrEqual(880 - 196 + 0.1);
          expect(y).toBeGreaterThanOrEqual(13.9);
          expect(y).toBeLessThanOrEqual(320 - 44 + 0.1);
        }
      }),
    );
  });

  test("is empty without points, and stands a single one", () => {
    expect(lineChart({ ...chart, curves: [curve("training", "c1", [])] })).toBe("");
    const one = lineChart({ ...chart, curves: [curve("training", "c1", [3])] });
    expect(one).toContain("3.0 training");
    expect(one.match(/<circle/g)).toHaveLength(1);
    expect(one).not.toContain("NaN");
  });
});
