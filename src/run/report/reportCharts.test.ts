import { describe, expect, test } from "vitest";
import { exampleEvents } from "../../../test/support/exampleEvents.ts";
import { syntheticRun } from "../../../test/support/syntheticRun.ts";
import type { RunEvent, StepCompleted } from "../../base/index.ts";
import { collectHistory } from "../log/history.ts";
import { balanceChart, biasCharts, loadMaps, lossCharts, scheduleCharts } from "./reportCharts.ts";
import { reportData } from "./reportData.ts";

const dataOf = async (events: Iterable<RunEvent>) => reportData(await collectHistory(events));
const titles = (markup: string) =>
  [...markup.matchAll(/<figcaption><b>([^<]*)<\/b>/g)].map(([, title]) => title);
const texts = (markup: string) =>
  [...markup.matchAll(/<text[^>]*>([^<]*)<\/text>/g)].map(([, text]) => text!);

/** A run of steps that differ as told from the example. */
function steps(count: number, change: (index: number) => Partial<StepCompleted>): RunEvent[] {
  const example = exampleEvents["step.completed"];
  return [
    exampleEvents["run.started"],
    ...Array.from({ length: count }, (_, index) => ({ ...example, step: index + 1, ...change(index) })),
  ];
}

describe("lossCharts", () => {
  test("draws training, every MTP depth and validation, and names their last values", async () => {
    const constant = { mainLoss: 5, mtpLosses: [6, 7], bitsPerByte: 2.5 };
    const data = await dataOf([
      ...steps(100, () => constant),
      { ...exampleEvents["evaluation.completed"], step: 100 },
    ]);
    const labels = texts(lossCharts(data));
    for (const label of ["5.00 training", "6.00 MTP 1", "7.00 MTP 2", "5.10 validation"]) {
      expect(labels).toContain(label);
    }
    expect(labels).toEqual(expect.arrayContaining(["2.50 training", "2.94 validation"]));
  });

  test("cuts off the first steps and nothing else", async () => {
    const data = await dataOf(steps(100, (index) => ({ mainLoss: index < 3 ? 100 : 4, mtpLosses: [] })));
    const markup = lossCharts(data);
    expect(markup).toContain("cut off");
    const heights = [...markup.matchAll(/text-anchor="end">([\d.]+)</g)].map(([, text]) => Number(text));
    expect(Math.max(...heights)).toBeLessThan(10);
    const even = await dataOf(steps(100, () => ({ mainLoss: 4, mtpLosses: [] })));
    expect(lossCharts(even)).not.toContain("cut off");
  });

  test("draws the baselines as levels", async () => {
    const data = await dataOf([...steps(50, () => ({})), exampleEvents["baselines.measured"]]);
    expect(texts(lossCharts(data))).toContain("2.50 order-2 byte model");
  });

  test("an evaluation that was not finite leaves a gap and breaks nothing", async () => {
    const lost = { ...exampleEvents["evaluation.completed"], loss: null, bitsPerByte: null };
    const markup = lossCharts(await dataOf([...steps(50, () => ({})), lost]));
    expect(markup).not.toMatch(/NaN|null|validation/);
  });
});

describe("scheduleCharts", () => {
  test("has one chart for each thing that drives or measures the run", async () => {
    expect(titles(scheduleCharts(await dataOf(steps(20, () => ({})))))).toEqual([
      "Learning rate",
      "Gradient norm before clipping",
      "Router bias step",
      "Weight of the MTP loss",
      "Speed",
      "Share of peak",
    ]);
  });

  test("leaves out what the model or the machine does not have", async () => {
    const bare = { expertLoad: [], mtpLosses: [], shareOfPeak: null };
    const markup = scheduleCharts(await dataOf(steps(20, () => bare)));
    expect(titles(markup)).toEqual(["Learning rate", "Gradient norm before clipping", "Speed"]);
  });
});

describe("loadMaps and balanceChart", () => {
  test("show one map a layer, MTP's named, and one legend", async () => {
    const markup = loadMaps(await dataOf(steps(30, () => ({}))));
    expect(titles(markup)).toEqual(["layer 1", "layer 2 (MTP)"]);
    expect(markup.match(/class="legend"/g)).toHaveLength(1);
  });

  test("take the busiest and the idlest of all layers", async () => {
    const labels = texts(balanceChart(await dataOf(steps(150, () => ({})))));
    // Layer 2 of the example has 40 and 24 where the mean is 32.
    expect(labels).toEqual(expect.arrayContaining(["1.25 busiest", "0.75 idlest"]));
    expect(labels).toEqual(expect.arrayContaining(["1.15 aim, at most", "0.80 aim, at least"]));
  });

  test("are empty for a dense model", async () => {
    const data = await dataOf(steps(30, () => ({ expertLoad: [] })));
    expect([loadMaps(data), balanceChart(data), biasCharts(data)]).toEqual(["", "", ""]);
  });
});

describe("biasCharts", () => {
  test("name the expert that was pulled up most and the one pushed down most", async () => {
    const bias = { ...exampleEvents["router.bias"], layers: [{ layer: 1, bias: [0.1, -0.3, 0.2, 0] }] };
    const labels = texts(biasCharts(await dataOf([...steps(5, () => ({})), bias])));
    expect(labels).toEqual(expect.arrayContaining(["0.20 expert 2", "-0.30 expert 1"]));
  });

  test("draw every expert", async () => {
    const markup = biasCharts(await dataOf(syntheticRun({ steps: 50 })));
    expect(markup.match(/class="faint"/g)).toHaveLength(6 * 14);
    expect(markup.match(/class="curve c[12]"/g)).toHaveLength(6 * 2);
  });

  test("without balancing all biases are zero and one curve says so", async () => {
    const markup = biasCharts(await dataOf(syntheticRun({ steps: 50, gamma: 0 })));
    expect(markup.match(/0\.00 expert 0/g)!.length).toBeGreaterThan(0);
    expect(markup).not.toContain("NaN");
  });
});
