/** Which curves the report draws, and out of which events. */
import { formatCount } from "../../base/index.ts";
import { countsOf, windowLoads } from "../loadBalance.ts";
import { heatMap, heatMapLegend, relativeLoads } from "./heatMap.ts";
import { type Curve, type LineChart, lineChart } from "./lineChart.ts";
import { balanceBounds, balanceWindow, layerName, type ReportData } from "./reportData.ts";
import { type Point, smooth } from "./series.ts";

type Step = ReportData["steps"][number];

/** Steps over which a curve of noisy steps is smoothed: a fiftieth of the run. */
function span({ steps }: ReportData): number {
  return Math.max(1, Math.round(steps.length / 50));
}

function points(data: ReportData, pick: (step: Step) => number | undefined | null): Point[] {
  return data.steps.flatMap((step) => {
    const y = pick(step);
    return y === undefined || y === null ? [] : [{ x: step.step, y }];
  });
}

function smoothed(
  data: ReportData,
  name: string,
  tone: Curve["tone"],
  pick: (step: Step) => number | undefined | null,
): Curve {
  const raw = points(data, pick);
  return { name, tone, raw, points: smooth(raw, span(data)) };
}

function evaluated(data: ReportData, tone: Curve["tone"], key: "loss" | "bitsPerByte"): Curve {
  const values = data.evaluations.flatMap(({ step, [key]: y }) => (y === null ? [] : [{ x: step, y }]));
  return { name: "validation", tone, points: values, hasDots: true };
}

/** The highest value worth showing: the first steps would flatten all that follows. Undefined if they would not. */
function limitOf(curves: readonly Curve[]): { readonly yLimit?: number } {
  const shown = curves
    .filter(({ points: all }) => all.length > 0)
    .map(({ points: all }) => all.map(({ y }) => y));
  const early = Math.max(...shown.map((ys) => ys[Math.floor(ys.length * 0.04)]!));
  const highest = Math.max(...shown.map((ys) => ys.reduce((a, b) => Math.max(a, b))));
  return highest > 1.1 * early ? { yLimit: early } : {};
}

export function lossCharts(data: ReportData): string {
  const depths = data.steps[0]?.mtpLosses ?? [];
  const curves = [
    smoothed(data, "training", "c1", ({ mainLoss }) => mainLoss),
    ...depths.map((_, depth) =>
      smoothed(data, `MTP ${depth + 1}`, "c2", ({ mtpLosses }) => mtpLosses[depth]),
    ),
    evaluated(data, "c3", "loss"),
  ];
  const bits = [
    smoothed(data, "training", "c1", ({ bitsPerByte }) => bitsPerByte),
    evaluated(data, "c3", "bitsPerByte"),
  ];
  const levels = data.baselines
    .filter(({ isModel }) => !isModel)
    .map(({ name, bitsPerByte }) => ({ name, y: bitsPerByte }));
  const format = (value: number) => value.toFixed(2);
  return [
    lineChart({ title: "Loss", unit: "nats per token", curves, format, ...limitOf(curves) }),
    lineChart({
      title: "Bits per byte",
      unit: "bits per byte",
      curves: bits,
      levels,
      format,
      ...limitOf(bits),
    }),
  ].join("\n");
}

/** What drives the optimizer, and how fast the machine went. */
export function scheduleCharts(data: ReportData): string {
  // The title of each of these charts names its only curve.
  const exact = (pick: (step: Step) => number | null): readonly Curve[] => [
    { name: "", tone: "c1", points: points(data, pick) },
  ];
  const gradNorm = [smoothed(data, "", "c1", (step) => step.gradNorm)];
  const charts: LineChart[] = [
    {
      title: "Learning rate",
      unit: "rate",
      curves: exact((step) => step.learningRate),
      format: short,
      fromZero: true,
    },
    {
      title: "Gradient norm before clipping",
      unit: "norm",
      curves: gradNorm,
      format: short,
      fromZero: true,
      ...limitOf(gradNorm),
    },
    {
      title: "Router bias step",
      unit: "gamma",
      curves: exact(({ gamma, expertLoad }) => (expertLoad.length === 0 ? null : gamma)),
      format: short,
      fromZero: true,
    },
    {
      title: "Weight of the MTP loss",
      unit: "lambda",
      curves: exact(({ mtpWeight, mtpLosses }) => (mtpLosses.length === 0 ? null : mtpWeight)),
      format: short,
      fromZero: true,
    },
    {
      title: "Speed",
      unit: "tokens per second",
      curves: [smoothed(data, "", "c1", (step) => step.tokensPerSecond)],
      format: formatCount,
      fromZero: true,
    },
    {
      title: "Share of peak",
      unit: "share",
      curves: [smoothed(data, "", "c1", (step) => step.shareOfPeak)],
      format: (value) => `${Math.round(value * 100)}%`,
      fromZero: true,
    },
  ];
  return charts.map((chart) => lineChart({ ...chart, size: "small" })).join("\n");
}

const short = (value: number): string => (value === 0 ? "0" : String(Number(value.toPrecision(2))));

/** The most and the least loaded expert of any layer, in windows; a short run gets shorter ones, to be a curve. */
export function balanceChart(data: ReportData): string {
  const window = Math.min(balanceWindow, Math.max(1, Math.floor(data.steps.length / 5)));
  const layers = windowLoads(data.steps, window);
  const extreme = (key: "max" | "min", pick: (a: number, b: number) => number): Point[] =>
    (layers[0] ?? []).map(({ lastStep }, index) => ({
      x: lastStep,
      y: layers.map((windows) => windows[index]![key]).reduce((a, b) => pick(a, b)),
    }));
  return lineChart({
    title: `Busiest and idlest expert of any layer, in windows of ${window} steps`,
    unit: "load / mean load",
    curves: [
      { name: "busiest", tone: "c2", points: extreme("max", Math.max) },
      { name: "idlest", tone: "c1", points: extreme("min", Math.min) },
    ],
    levels: [
      { name: "aim, at most", y: balanceBounds.max },
      { name: "aim, at least", y: balanceBounds.min },
    ],
    format: (value) => value.toFixed(2),
  });
}

export function loadMaps(data: ReportData): string {
  const { steps } = data;
  const layers = (steps[0]?.expertLoad ?? []).map(({ layer }) => layer);
  if (layers.length === 0) return "";
  const maps = layers.map((layer) =>
    heatMap({
      title: layerName(layer, data),
      loads: relativeLoads(
        steps.map(({ expertLoad }) => countsOf(expertLoad, layer)),
        120,
      ),
      firstStep: steps[0]!.step,
      lastStep: steps.at(-1)!.step,
    }),
  );
  return `${heatMapLegend()}\n<div class="charts">\n${maps.join("\n")}\n</div>`;
}

/** Each expert's bias over time; the highest and the lowest at the end are named. */
export function biasCharts(data: ReportData): string {
  const layers = data.biases[0]?.layers ?? [];
  const charts = layers.map(({ layer, bias }) => {
    const curves = bias.map((_, expert) =>
      data.biases.flatMap(({ step, layers: all }) => {
        const y = all.find((one) => one.layer === layer)?.bias[expert];
        return y === undefined ? [] : [{ x: step, y }];
      }),
    );
    const ends = curves.map((curve) => curve.at(-1)!.y);
    const highest = ends.indexOf(Math.max(...ends));
    const lowest = ends.indexOf(Math.min(...ends));
    const named = (expert: number, tone: Curve["tone"]): Curve => ({
      name: `expert ${expert}`,
      tone,
      points: curves[expert]!,
    });
    const others = curves.filter((_, expert) => expert !== highest && expert !== lowest);
    return lineChart({
      title: layerName(layer, data),
      unit: "bias",
      // All biases are equal before the first update, and for ever with gamma = 0.
      curves: highest === lowest ? [named(highest, "c1")] : [named(highest, "c2"), named(lowest, "c1")],
      background: others,
      format: (value) => value.toFixed(2),
      size: "small",
    });
  });
  return charts.length === 0 ? "" : `<div class="charts">\n${charts.join("\n")}\n</div>`;
}
