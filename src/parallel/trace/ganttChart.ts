/**
 * Ranks over time as an SVG: a row for each rank, computation in it, communication as a strip below.
 *
 * The rectangles lie in a drawing of their own that is stretched in one dimension only: to zoom, the page's script
 * changes that drawing's `viewBox` and moves the labels, nothing else.
 */
import { coordinate, escapeMarkup, ticks } from "../../run/index.ts";
import type { TimelineAccount } from "./account.ts";
import { exposedMarks, type Mark, spanMarks } from "./ganttMarks.ts";
import type { RankSpans } from "./spans.ts";
import { timeUnit } from "./timeText.ts";

/** Width of the plot; the page scales it. */
export const plotWidth = 1240;
const left = 62;
const top = 8;
const axisHeight = 26;
const gap = 7;
const strip = 7;

/** Rectangles in one page before the finest are joined: browsers stay quick. */
const mostMarks = 20_000;

export interface GanttChart {
  readonly svg: string;
  /** Spans that were too fine to be drawn apart. */
  readonly joined: number;
}

export function ganttChart(ranks: readonly RankSpans[], account: TimelineAccount): GanttChart {
  const length = account.end - account.start || 1;
  const perSecond = plotWidth / length;
  const total = ranks.reduce((sum, { spans }) => sum + spans.length, 0);
  const scale = {
    start: account.start,
    perSecond,
    unit: timeUnit(length),
    finest: total > mostMarks ? 0.4 : 0,
  };
  const marks = ranks.map(({ spans }) => spanMarks(spans, scale));
  // Only numbers count: names of other work differ in length anyway.
  const longestLabel = marks
    .flat()
    .reduce((most, { label, tone }) => (tone === "other" ? most : Math.max(most, label.length)), 1);
  const hasStrip = ranks.some(({ spans }) => spans.some(({ category }) => category === "communication"));
  const bar = ranks.length <= 8 ? 30 : 24;
  const pitch = bar + (hasStrip ? strip + 2 : 0) + gap;
  const height = ranks.length * pitch;
  const rows = ranks.map((_, index) => {
    const exposed = exposedMarks(account.ranks[index]!.exposed, scale);
    return rowMarks([...marks[index]!, ...exposed], { bar, y: index * pitch, longestLabel });
  });
  const svg = `<svg id="gantt" viewBox="0 0 ${left + plotWidth + 10} ${top + height + axisHeight}" role="img" aria-label="${escapeMarkup(describe(account))}" data-seconds="${length}" data-unit="${scale.unit.name}" data-per-second="${scale.unit.perSecond}">
${ranks.map(({ rank }, index) => `<text class="rank" x="${left - 10}" y="${top + index * pitch + bar / 2}" dy=".35em" text-anchor="end">rank ${rank}</text>`).join("\n")}
<g id="axis" transform="translate(${left} ${top})" data-height="${height}">${axis(length, height, scale.unit)}</g>
<svg id="plot" x="${left}" y="${top}" width="${plotWidth}" height="${height}" viewBox="0 0 ${plotWidth} ${height}" preserveAspectRatio="none">
${rows.map(({ shapes }) => shapes).join("\n")}
</svg>
<g id="labels" transform="translate(${left} ${top})">
${rows.map(({ labels }) => labels).join("\n")}
</g>
</svg>`;
  return {
    svg,
    joined: ranks.reduce(
      (sum, { spans }, index) => sum + Math.max(0, spans.length - wholes(marks[index]!)),
      0,
    ),
  };
}

/** Spans among the marks: a pair is two marks. */
function wholes(marks: readonly Mark[]): number {
  return marks.filter(({ part }) => part !== "lower").length;
}

interface Row {
  readonly bar: number;
  readonly y: number;
  /** Of all numbers: they are shown where each would fit, or a row would show its short ones only. */
  readonly longestLabel: number;
}

function rowMarks(
  marks: readonly Mark[],
  { bar, y, longestLabel }: Row,
): { readonly shapes: string; readonly labels: string } {
  const shapes = marks.map((mark) => {
    const [offset, height] = extent(mark, bar);
    const title = mark.title === "" ? "" : `<title>${escapeMarkup(mark.title)}</title>`;
    return `<rect class="${mark.tone}" x="${fine(mark.x)}" y="${y + offset}" width="${fine(mark.width)}" height="${height}">${title}</rect>`;
  });
  const labels = marks
    .filter(({ label }) => label !== "")
    .map((mark) => {
      const [offset, height] = extent(mark, bar);
      const room = 6.2 * (mark.tone === "other" ? mark.label.length : longestLabel) + 3;
      const isHidden = mark.width < room ? ` visibility="hidden"` : "";
      return `<text class="on-${mark.tone}" x="${coordinate(mark.x + mark.width / 2)}" y="${coordinate(y + offset + height / 2)}" dy=".35em" data-width="${fine(mark.width)}" data-room="${room}"${isHidden}>${escapeMarkup(mark.label)}</text>`;
    });
  return {
    shapes: [`<rect class="lane" x="0" y="${y}" width="${plotWidth}" height="${bar}"/>`, ...shapes].join(
      "\n",
    ),
    labels: labels.join("\n"),
  };
}

/** Offset from the row's top, and height. */
function extent({ lane, part }: Mark, bar: number): readonly [number, number] {
  if (lane === "communication") return [bar + 2, strip];
  if (part === "whole") return [0, bar];
  return part === "upper" ? [0, bar / 2] : [bar / 2, bar / 2];
}

function axis(
  length: number,
  height: number,
  unit: { readonly name: string; readonly perSecond: number },
): string {
  const whole = length * unit.perSecond;
  return ticks(0, whole, 10)
    .filter((tick) => tick <= whole)
    .map((tick) => {
      const x = coordinate((tick / whole) * plotWidth);
      return `<path class="grid" d="M${x} 0V${height}"/><text x="${x}" y="${height + 16}" text-anchor="middle">${tick} ${unit.name}</text>`;
    })
    .join("");
}

/** Finer than a screen's pixel: the drawing is stretched when it is zoomed into. */
function fine(value: number): string {
  return String(Number(value.toPrecision(7)));
}

function describe({ ranks }: TimelineAccount): string {
  return `Timeline of ${ranks.length} ranks; the table below has its sums`;
}
