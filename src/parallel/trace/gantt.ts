/** A timeline of ranks as one page that needs nothing but itself: style, drawing and script are inside. */
import { formatShare } from "../../base/index.ts";
import { escapeMarkup, htmlTable, reportStyle } from "../../run/index.ts";
import { accountTimeline, type TimelineAccount } from "./account.ts";
import { ganttChart } from "./ganttChart.ts";
import { ganttScript } from "./ganttScript.ts";
import { ganttStyle } from "./ganttStyle.ts";
import { orderedRanks, type RankSpans, type Span } from "./spans.ts";
import { timeText, timeUnit } from "./timeText.ts";

export interface GanttPage {
  readonly title: string;
  /** A line below the title: where the times come from. */
  readonly source: string;
  readonly ranks: readonly RankSpans[];
  /** Markup that follows the timeline: what its times are made of. */
  readonly sections?: string;
}

export function ganttPage({ title, source, ranks: given, sections = "" }: GanttPage): string {
  const ranks = orderedRanks(given);
  const account = accountTimeline(ranks);
  const { svg, joined } = ganttChart(ranks, account);
  const note = joined === 0 ? "" : `<p class="soft">${joined} spans are too fine to be drawn apart.</p>`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeMarkup(title)}</title>
<style>${reportStyle}${ganttStyle}</style>
</head>
<body>
<main>
<h1>${escapeMarkup(title)}</h1>
<p class="soft">${escapeMarkup(source)}</p>
<div class="tiles">
${tiles(account)}
</div>
<figure class="gantt">
<figcaption>${legend(ranks)}<span id="controls" hidden><button id="wider">−</button> <button id="closer">+</button> <button id="all">whole</button></span></figcaption>
${svg}
</figure>
${note}
<section>
<h2>Where each rank's time went</h2>
${accountTable(account)}
<p class="soft">At every moment a rank computes, or communicates with nothing to compute (exposed), or does neither (bubble): the three add up to the timeline. Drag to move; to zoom, Ctrl or Shift with the wheel, or a double click.</p>
</section>
${sections}</main>
<script>${ganttScript}</script>
</body>
</html>
`;
}

interface Sums {
  readonly compute: number;
  readonly communication: number;
  readonly exposedCommunication: number;
  readonly bubble: number;
}

/** Means over the ranks. */
function means({ ranks }: TimelineAccount): Sums {
  const mean = (key: keyof Sums) =>
    ranks.reduce((sum, rank) => sum + rank[key], 0) / Math.max(1, ranks.length);
  return {
    compute: mean("compute"),
    communication: mean("communication"),
    exposedCommunication: mean("exposedCommunication"),
    bubble: mean("bubble"),
  };
}

function tiles(account: TimelineAccount): string {
  const length = account.end - account.start;
  const { compute, communication, exposedCommunication, bubble } = means(account);
  const share = (time: number) => formatShare(length === 0 ? 0 : time / length);
  const values = [
    [timeText(length, timeUnit(length)), "timeline"],
    [share(compute), "computing"],
    [share(bubble), "bubble"],
    communication === 0
      ? ["none", "communication recorded"]
      : [formatShare(1 - exposedCommunication / communication), "of communication hidden"],
  ];
  return values
    .map(([value, name]) => `<div class="tile"><b>${escapeMarkup(value!)}</b><span>${name}</span></div>`)
    .join("\n");
}

function accountTable(account: TimelineAccount): string {
  const length = account.end - account.start;
  const unit = timeUnit(length);
  const cell = (time: number) =>
    `${timeText(time, unit)} <span class="share">${formatShare(length === 0 ? 0 : time / length)}</span>`;
  const hasCommunication = account.ranks.some(({ communication }) => communication > 0);
  const row = (name: string, { compute, communication, exposedCommunication, bubble }: Sums) => [
    name,
    cell(compute),
    ...(hasCommunication
      ? [
          timeText(communication, unit),
          communication === 0 ? "-" : formatShare(1 - exposedCommunication / communication),
          cell(exposedCommunication),
        ]
      : []),
    cell(bubble),
  ];
  const communicationHead = hasCommunication ? ["communicating", "of it hidden", "exposed"] : [];
  const rows = [...account.ranks.map((one) => row(String(one.rank), one)), row("mean", means(account))];
  return `<div class="numbers">${htmlTable(["rank", "computing", ...communicationHead, "bubble"], rows)}</div>`;
}

/** What colours mean, of those that are there. */
function legend(ranks: readonly RankSpans[]): string {
  const spans = ranks.flatMap((rank) => rank.spans);
  const has = (test: (span: Span) => boolean) => spans.some(test);
  const hasPass = (pass: string, module: 0 | 1) =>
    has(({ chunks = [] }) => chunks.some((chunk) => chunk.pass === pass && chunk.module === module));
  const passes = [
    ["f", "forward", "forward"],
    ["b", "backward", "backward"],
    ["i", "backwardInput", "input part"],
    ["w", "backwardWeight", "weight part"],
  ] as const;
  const keys = passes.flatMap(([tone, pass, name]) => {
    const shades = ([0, 1] as const).filter((module) => hasPass(pass, module));
    return shades.length === 0
      ? []
      : [
          key(
            shades.map((module) => `${tone}${module}`),
            name,
          ),
        ];
  });
  if (has(({ category, chunks = [] }) => category === "compute" && chunks.length === 0)) {
    keys.push(key(["other"], "other work"));
  }
  if (has(({ category }) => category === "communication")) {
    keys.push(key(["comm"], "communication"), key(["exposed"], "exposed"));
  }
  if (has(({ category }) => category === "wait")) keys.push(key(["wait"], "waiting"));
  return keys.join("");
}

function key(tones: readonly string[], name: string): string {
  const swatches = tones.map((tone) => `<i class="cell ${tone}"></i>`).join("");
  return `<span class="key">${swatches}${name}</span>`;
}
