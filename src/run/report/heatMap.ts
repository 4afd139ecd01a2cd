/**
 * The load of every expert of a layer over time: steps from left to right, experts from top to bottom, colour for the
 * load as a multiple of the layer's mean.
 *
 * All cells of one level are one path, runs of equal cells one rectangle of it: a map of 1,600 cells is a few
 * kilobytes, and its colours are classes that follow light and dark.
 */
import { formatInteger } from "../../base/index.ts";
import { coordinate, escapeMarkup } from "./markup.ts";

/** Loads relative to the mean: `loads[expert][column]`. */
export interface HeatMap {
  readonly title: string;
  readonly loads: readonly (readonly number[])[];
  readonly firstStep: number;
  readonly lastStep: number;
}

/** Lower bounds of the levels; level 4, "as the mean", is the empty background. */
const bounds = [0, 0.5, 0.7, 0.85, 0.95, 1.05, 1.15, 1.3, 1.6] as const;
const evenLevel = 4;

export function levelOf(load: number): number {
  return Math.max(
    0,
    bounds.findLastIndex((bound) => load >= bound),
  );
}

const frame = { width: 430, left: 40, right: 10, top: 4, bottom: 36 } as const;

export function heatMap(map: HeatMap): string {
  const numExperts = map.loads.length;
  const numColumns = map.loads[0]?.length ?? 0;
  if (numColumns === 0) return "";
  const plotWidth = frame.width - frame.left - frame.right;
  const cellHeight = Math.min(12, Math.max(1, 192 / numExperts));
  const plotHeight = numExperts * cellHeight;
  const height = frame.top + plotHeight + frame.bottom;
  const paths = bounds
    .map((_, level) => ({ level, d: cellsOf(map.loads, level) }))
    .filter(({ level, d }) => level !== evenLevel && d !== "")
    .map(({ level, d }) => `<path class="h${level}" d="${d}"/>`);
  return `<figure class="small">
<figcaption><b>${escapeMarkup(map.title)}</b></figcaption>
<svg viewBox="0 0 ${frame.width} ${coordinate(height)}" role="img" aria-label="${escapeMarkup(`${map.title}: load of ${numExperts} experts, steps ${map.firstStep} to ${map.lastStep}`)}">
<rect class="h${evenLevel}" x="${frame.left}" y="${frame.top}" width="${plotWidth}" height="${coordinate(plotHeight)}"/>
<svg x="${frame.left}" y="${frame.top}" width="${plotWidth}" height="${coordinate(plotHeight)}" viewBox="0 0 ${numColumns} ${numExperts}" preserveAspectRatio="none" shape-rendering="crispEdges">
${paths.join("\n")}
</svg>
${labels(map, plotWidth, plotHeight, cellHeight)}
</svg>
</figure>`;
}

/** Rectangles of one level in units of cells: `M x y h width v1 h -width z` for each run of equal cells in a row. */
function cellsOf(loads: HeatMap["loads"], level: number): string {
  let d = "";
  for (const [expert, row] of loads.entries()) {
    for (let start = 0; start < row.length; start++) {
      if (levelOf(row[start]!) !== level) continue;
      let end = start + 1;
      while (end < row.length && levelOf(row[end]!) === level) end++;
      d += `M${start} ${expert}h${end - start}v1h${start - end}z`;
      start = end - 1;
    }
  }
  return d;
}

function labels(map: HeatMap, plotWidth: number, plotHeight: number, cellHeight: number): string {
  const last = map.loads.length - 1;
  const bottom = frame.top + plotHeight;
  const middle = (first: number) => coordinate(frame.top + (first + 0.5) * cellHeight);
  const steps = [map.firstStep, Math.floor((map.firstStep + map.lastStep) / 2), map.lastStep];
  const anchors = ["start", "middle", "end"] as const;
  return [
    `<text class="tick" x="${frame.left - 6}" y="${middle(0)}" dy=".32em" text-anchor="end">0</text>`,
    `<text class="tick" x="${frame.left - 6}" y="${middle(last)}" dy=".32em" text-anchor="end">${last}</text>`,
    `<text class="unit" transform="translate(13 ${coordinate(frame.top + plotHeight / 2)}) rotate(-90)" text-anchor="middle">expert</text>`,
    ...steps.map(
      (step, index) =>
        `<text class="tick" x="${frame.left + (index / 2) * plotWidth}" y="${coordinate(bottom + 15)}" text-anchor="${anchors[index]}">${formatInteger(step)}</text>`,
    ),
    `<text class="unit" x="${frame.left + plotWidth / 2}" y="${coordinate(bottom + 30)}" text-anchor="middle">step</text>`,
  ].join("\n");
}

/** What the colours mean; once for all maps of a page. */
export function heatMapLegend(): string {
  const texts = bounds.map((bound, level) => {
    const next = bounds[level + 1];
    if (level === 0) return `below ${next}`;
    return next === undefined ? `above ${bound}` : `${bound}–${next}`;
  });
  const keys = texts.map(
    (text, level) =>
      `<span class="key"><svg class="cell" viewBox="0 0 1 1"><rect class="h${level}" width="1" height="1"/></svg>${text}</span>`,
  );
  return `<p class="legend">Load as a multiple of the layer's mean: ${keys.join("")}</p>`;
}

/**
 * Loads relative to the mean in at most `maxColumns` columns, each the sum of neighbouring steps.
 *
 * @param counts  `counts[step][expert]`
 */
export function relativeLoads(counts: readonly (readonly number[])[], maxColumns: number): number[][] {
  const perColumn = Math.max(1, Math.ceil(counts.length / maxColumns));
  const numExperts = counts[0]?.length ?? 0;
  const rows: number[][] = Array.from({ length: numExperts }, () => []);
  for (let start = 0; start < counts.length; start += perColumn) {
    const part = counts.slice(start, start + perColumn);
    const sums = rows.map((_, expert) => part.reduce((sum, step) => sum + (step[expert] ?? 0), 0));
    const mean = sums.reduce((total, sum) => total + sum, 0) / numExperts;
    for (const [expert, sum] of sums.entries()) rows[expert]!.push(mean === 0 ? 1 : sum / mean);
  }
  return rows;
}
