/**
 * Curves over steps as an SVG: axes with units, a legend, and the last value written beside each curve.
 *
 * Colours are classes of reportStyle.ts, so that one drawing serves light and dark. Pure: data in, markup out.
 */
import { formatInteger } from "../../base/index.ts";
import { coordinate, escapeMarkup } from "./markup.ts";
import { type Point, thin, ticks } from "./series.ts";

export interface Curve {
  readonly name: string;
  /** Class of its colour: `c1` to `c4`. */
  readonly tone: "c1" | "c2" | "c3" | "c4";
  readonly points: readonly Point[];
  /** Drawn faintly below: what was measured before it was smoothed. */
  readonly raw?: readonly Point[];
  /** Dots at the points, for measurements that are few. */
  readonly hasDots?: boolean;
}

/** A level line across the chart: a bar to beat, a bound to keep. */
export interface Level {
  readonly name: string;
  readonly y: number;
}

export interface LineChart {
  readonly title: string;
  /** What the vertical axis counts: `nats per token`. */
  readonly unit: string;
  readonly curves: readonly Curve[];
  /** Thin curves without a name, behind the others. */
  readonly background?: readonly (readonly Point[])[];
  readonly levels?: readonly Level[];
  readonly format: (value: number) => string;
  /** The axis begins at zero. */
  readonly fromZero?: boolean;
  /** Values above are cut off: the first steps of a loss would flatten all that follows. */
  readonly yLimit?: number;
  readonly size?: "wide" | "small";
}

interface Frame {
  readonly width: number;
  readonly height: number;
  readonly left: number;
  readonly right: number;
  readonly top: number;
  readonly bottom: number;
}

const frames: Readonly<Record<"wide" | "small", Frame>> = {
  wide: { width: 880, height: 320, left: 62, right: 196, top: 14, bottom: 44 },
  small: { width: 430, height: 210, left: 64, right: 104, top: 12, bottom: 42 },
};

/** The chart with its caption; empty if there is nothing to draw. */
export function lineChart(given: LineChart): string {
  const chart = { ...given, curves: given.curves.filter(({ points }) => points.length > 0) };
  const all = [...chart.curves.map(({ points }) => points), ...(chart.background ?? [])].flat();
  if (all.length === 0) return "";
  const size = chart.size ?? "wide";
  const frame = frames[size];
  const scale = scaleOf(chart, all, frame);
  const drawing = [
    axes(chart, frame, scale),
    ...(chart.levels ?? []).map((level) => levelLine(level, frame, scale)),
    ...(chart.background ?? []).map((points) => path(thin(points, 120), "faint", chart, scale)),
    ...chart.curves.map((curve) => curveLines(curve, chart, frame, scale)),
    endLabels(chart, frame, scale),
  ].join("\n");
  return `<figure class="${size}">
<figcaption><b>${escapeMarkup(chart.title)}</b>${legend(chart)}</figcaption>
<svg viewBox="0 0 ${frame.width} ${frame.height}" role="img" aria-label="${escapeMarkup(describe(chart))}">
${drawing}
</svg>
</figure>`;
}

interface Scale {
  readonly x: (value: number) => number;
  readonly y: (value: number) => number;
  readonly xTicks: readonly number[];
  readonly yTicks: readonly number[];
}

function scaleOf(chart: LineChart, all: readonly Point[], frame: Frame): Scale {
  const xs = all.map(({ x }) => x);
  const limit = limitOf(chart);
  const ys = [...all, ...chart.curves.flatMap(({ raw }) => raw ?? [])].map(({ y }) => Math.min(y, limit));
  ys.push(...(chart.levels ?? []).map(({ y }) => y));
  const yTicks = ticks(chart.fromZero ? Math.min(0, least(ys)) : least(ys), most(ys), 5);
  const [low, high] = [yTicks[0]!, yTicks.at(-1)!];
  const xHigh = most(xs);
  const xLow = Math.min(0, least(xs));
  const plotWidth = frame.width - frame.left - frame.right;
  const plotHeight = frame.height - frame.top - frame.bottom;
  return {
    x: (value) => frame.left + ((value - xLow) / (xHigh - xLow || 1)) * plotWidth,
    y: (value) => frame.top + (1 - (Math.min(value, high) - low) / (high - low)) * plotHeight,
    xTicks: ticks(xLow, xHigh, plotWidth > 400 ? 8 : 4).filter((tick) => tick <= xHigh),
    yTicks,
  };
}

/** A level above the limit lifts it: there is room for the curve as well. */
function limitOf({ yLimit, levels }: LineChart): number {
  return Math.max(yLimit ?? Number.POSITIVE_INFINITY, ...(levels ?? []).map(({ y }) => y));
}

const least = (values: readonly number[]): number => values.reduce((a, b) => Math.min(a, b));
const most = (values: readonly number[]): number => values.reduce((a, b) => Math.max(a, b));

function axes(chart: LineChart, frame: Frame, scale: Scale): string {
  const right = frame.width - frame.right;
  const bottom = frame.height - frame.bottom;
  const rows = scale.yTicks.map((tick) => {
    const y = coordinate(scale.y(tick));
    return `<path class="grid" d="M${frame.left} ${y}H${right}"/><text class="tick" x="${frame.left - 8}" y="${y}" dy=".32em" text-anchor="end">${escapeMarkup(chart.format(tick))}</text>`;
  });
  const columns = scale.xTicks.map((tick) => {
    const x = coordinate(scale.x(tick));
    return `<path class="axis" d="M${x} ${bottom}v4"/><text class="tick" x="${x}" y="${bottom + 17}" text-anchor="middle">${formatInteger(tick)}</text>`;
  });
  const middle = (frame.left + right) / 2;
  const half = frame.top + (bottom - frame.top) / 2;
  return [
    ...rows,
    ...columns,
    `<path class="axis" d="M${frame.left} ${bottom}H${right}"/>`,
    `<text class="unit" x="${middle}" y="${frame.height - 6}" text-anchor="middle">step</text>`,
    `<text class="unit" transform="translate(11 ${half}) rotate(-90)" text-anchor="middle">${escapeMarkup(chart.unit)}</text>`,
  ].join("\n");
}

function levelLine({ y }: Level, frame: Frame, scale: Scale): string {
  return `<path class="level" d="M${frame.left} ${coordinate(scale.y(y))}H${frame.width - frame.right}"/>`;
}

function curveLines(curve: Curve, chart: LineChart, frame: Frame, scale: Scale): string {
  const limit = Math.floor((frame.width - frame.left - frame.right) / 1.2);
  const parts: string[] = [];
  if (curve.raw !== undefined) parts.push(path(thin(curve.raw, limit), `raw ${curve.tone}`, chart, scale));
  parts.push(path(thin(curve.points, limit), `curve ${curve.tone}`, chart, scale));
  // A line of one point has no length: only a dot shows it.
  if (curve.hasDots || curve.points.length === 1) {
    for (const point of curve.points.filter(({ y }) => y <= limitOf(chart))) {
      const title = `${curve.name} at step ${point.x}: ${chart.format(point.y)}`;
      parts.push(
        `<circle class="dot ${curve.tone}" cx="${coordinate(scale.x(point.x))}" cy="${coordinate(scale.y(point.y))}" r="3"><title>${escapeMarkup(title)}</title></circle>`,
      );
    }
  }
  return parts.join("\n");
}

/** A line through the points; it begins where the values come below the limit. */
function path(points: readonly Point[], className: string, chart: LineChart, scale: Scale): string {
  const limit = limitOf(chart);
  const firstShown = Math.max(0, points.findIndex(({ y }) => y <= limit) - 1);
  const corners = points
    .slice(firstShown)
    .map(({ x, y }) => `${coordinate(scale.x(x))} ${coordinate(scale.y(y))}`);
  return `<path class="${className}" d="M${corners.join("L")}"/>`;
}

interface EndLabel {
  readonly text: string;
  readonly className: string;
  y: number;
}

const labelHeight = 14;

/** Names and last values at the right end, pushed apart where they would lie on each other. */
function endLabels(chart: LineChart, frame: Frame, scale: Scale): string {
  const labels: EndLabel[] = [
    ...chart.curves.flatMap(({ name, points, tone }) => {
      const last = points.at(-1);
      if (last === undefined) return [];
      return [
        { text: `${chart.format(last.y)} ${name}`.trim(), className: `label ${tone}`, y: scale.y(last.y) },
      ];
    }),
    ...(chart.levels ?? []).map(({ name, y }) => ({
      text: `${chart.format(y)} ${name}`,
      className: "label level-label",
      y: scale.y(y),
    })),
  ].sort((a, b) => a.y - b.y);
  spread(labels, frame.top + 4, frame.height - frame.bottom);
  const x = frame.width - frame.right + 8;
  const room = Math.floor((frame.right - 8) / 5.9);
  return labels
    .map(
      ({ text, className, y }) =>
        `<text class="${className}" x="${x}" y="${coordinate(y)}" dy=".32em">${escapeMarkup(shorten(text, room))}</text>`,
    )
    .join("\n");
}

/** Down from the top so that none overlaps, then up from the bottom for what was pushed out. */
function spread(labels: EndLabel[], top: number, bottom: number): void {
  for (const [index, label] of labels.entries()) {
    label.y = Math.max(label.y, index === 0 ? top : labels[index - 1]!.y + labelHeight);
  }
  for (let index = labels.length - 1; index >= 0; index--) {
    const floor = index === labels.length - 1 ? bottom : labels[index + 1]!.y - labelHeight;
    labels[index]!.y = Math.min(labels[index]!.y, floor);
  }
}

function shorten(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`;
}

function legend(chart: LineChart): string {
  const curves = chart.curves
    .filter(({ name }) => name !== "")
    .map(({ name, tone }) => `<span class="key"><i class="swatch ${tone}"></i>${escapeMarkup(name)}</span>`);
  const levels = (chart.levels ?? []).map(
    ({ name }) => `<span class="key"><i class="swatch dashed"></i>${escapeMarkup(name)}</span>`,
  );
  const limit = limitOf(chart);
  const isCut = chart.curves.some(({ points }) => points.some(({ y }) => y > limit));
  const note = isCut ? [`<span class="key">above ${chart.format(limit)} cut off</span>`] : [];
  return [...curves, ...levels, ...note].join("");
}

function describe(chart: LineChart): string {
  const ends = chart.curves.map(({ name, points }) => {
    const { x, y } = points.at(-1)!;
    return `${name} ends at ${chart.format(y)} at step ${x}`.trim();
  });
  return `${chart.title}, in ${chart.unit}: ${ends.join("; ")}`;
}
