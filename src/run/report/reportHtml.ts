/**
 * The report as one page that needs nothing but itself: style and drawings are inside, there is no script and no
 * address to load from, so it opens the same offline and in ten years.
 */
import { formatDuration, formatInteger } from "../../base/index.ts";
import { escapeMarkup, htmlTable } from "./markup.ts";
import { balanceChart, biasCharts, loadMaps, lossCharts, scheduleCharts } from "./reportCharts.ts";
import { balanceBounds, balanceWindow, type Fact, layerName, type ReportData } from "./reportData.ts";
import { reportStyle } from "./reportStyle.ts";

export function reportHtml(data: ReportData): string {
  const { summary } = data;
  const title = escapeMarkup(summary.runId);
  const sections = [
    section("Learning", lossCharts(data)),
    section("Against simple models", baselineTable(data)),
    section("Samples while it learned", samples(data)),
    section("Expert load", expertLoad(data)),
    section("Router bias", routerBias(data)),
    section("Schedules and speed", `<div class="charts">\n${scheduleCharts(data)}\n</div>`),
    section("Where the time went", phaseBars(data)),
    section("What happened", incidentList(data)),
    section("Model", factTable(data.facts.model)),
    section("Data", factTable(data.facts.data)),
    section("Memory", factTable(data.facts.memory)),
    section("Machine and command", factTable(data.facts.machine)),
    section("Settings", factTable(data.facts.settings)),
  ];
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<style>${reportStyle}</style>
</head>
<body>
<main>
<h1>${title}</h1>
<p class="soft"><span class="status ${summary.status}">${summary.status}</span> begun ${escapeMarkup(readableTime(summary.started))}, minke ${escapeMarkup(summary.version)}</p>
<div class="tiles">
${data.headline.map(({ name, value }) => `<div class="tile"><b>${escapeMarkup(value)}</b><span>${escapeMarkup(name)}</span></div>`).join("\n")}
</div>
${sections.filter((text) => text !== "").join("\n")}
<footer>Made from events.jsonl by minke ${escapeMarkup(summary.version)}. Losses are nats per token; curves of single steps are smoothed over a fiftieth of the run, the unsmoothed values lie faintly below.</footer>
</main>
</body>
</html>
`;
}

function section(title: string, content: string): string {
  const isEmpty = content.replaceAll(/<div class="charts">|<\/div>|\s/g, "") === "";
  return isEmpty ? "" : `<section>\n<h2>${escapeMarkup(title)}</h2>\n${content}\n</section>`;
}

function readableTime(iso: string): string {
  return `${iso.slice(0, 10)} ${iso.slice(11, 16)} UTC`;
}

function baselineTable({ baselines }: ReportData): string {
  if (baselines.length === 0) return "";
  const worst = baselines.reduce((most, { bitsPerByte }) => Math.max(most, bitsPerByte), 0);
  const rows = baselines.map(({ name, bitsPerByte, isModel }) => {
    const tone = isModel ? "var(--c1)" : "var(--axis)";
    const width = Math.round((bitsPerByte / worst) * 100);
    const label = isModel ? `<b>${escapeMarkup(name)}</b>` : escapeMarkup(name);
    return `<span>${label}</span><i style="width:${width}%;background:${tone}"></i><span>${bitsPerByte.toFixed(3)}</span>`;
  });
  return `<p class="soft">Bits per byte of the same validation text; shorter is better.</p>
<div class="panel bars">\n${rows.join("\n")}\n</div>`;
}

/** Samples shown at once; the ones between are folded away. */
const samplesShown = 6;

function samples({ samples: all }: ReportData): string {
  const shown = new Set(
    Array.from({ length: samplesShown }, (_, index) =>
      Math.round((index * (all.length - 1)) / (samplesShown - 1)),
    ),
  );
  const card = ({ step, prompt, text }: ReportData["samples"][number]) =>
    `<div class="sample"><h3>step ${formatInteger(step)}</h3><p><span class="prompt">${escapeMarkup(prompt)}</span>${escapeMarkup(text)}</p></div>`;
  const visible = all.filter((_, index) => shown.has(index)).map(card);
  const folded = all.filter((_, index) => !shown.has(index)).map(card);
  const more =
    folded.length === 0
      ? ""
      : `<details><summary>${folded.length} more</summary>\n${folded.join("\n")}\n</details>`;
  return visible.join("\n") + more;
}

function expertLoad(data: ReportData): string {
  if (data.worstLoads.length === 0) return "";
  const judged = (value: number, isGood: boolean, window: { firstStep: number; lastStep: number }) =>
    `<span class="${isGood ? "good" : "bad"}">${value.toFixed(3)} ${isGood ? "✓" : "✗"}</span> <span class="soft">steps ${formatInteger(window.firstStep)}–${formatInteger(window.lastStep)}</span>`;
  const rows = data.worstLoads.map(({ layer, highest, lowest }) => [
    escapeMarkup(layerName(layer, data)),
    judged(highest.max, highest.max <= balanceBounds.max, highest),
    judged(lowest.min, lowest.min >= balanceBounds.min, lowest),
  ]);
  const aim = `Worst of all windows of ${balanceWindow} steps (or of all steps, if there are fewer) after the first fifth of the run, as multiples of the layer's mean load. Aim: the busiest expert at most ${balanceBounds.max}, the idlest at least ${balanceBounds.min}.`;
  return `${loadMaps(data)}
${balanceChart(data)}
<p class="soft">${aim}</p>
${htmlTable(["layer", "busiest expert", "idlest expert"], rows)}`;
}

function routerBias(data: ReportData): string {
  const charts = biasCharts(data);
  if (charts === "") return "";
  return `<p class="soft">What the router adds to each expert's affinity when it chooses: the busy are pushed down, the idle pulled up. It never changes how much an expert's answer counts.</p>\n${charts}`;
}

function phaseBars({ phases }: ReportData): string {
  if (phases.length === 0) return "";
  const longest = phases.reduce((most, { seconds }) => Math.max(most, seconds), 0) || 1;
  const rows = phases.map(
    ({ name, seconds }) =>
      `<span>${escapeMarkup(name)}</span><i style="width:${((seconds / longest) * 100).toFixed(1)}%"></i><span>${formatDuration(seconds)}</span>`,
  );
  return `<div class="panel bars">\n${rows.join("\n")}\n</div>`;
}

function incidentList({ incidents }: ReportData): string {
  if (incidents.length === 0) return "";
  const items = incidents.map(
    ({ step, text }) =>
      `<li>${step === null ? "" : `<span class="soft">step ${formatInteger(step)}</span> `}${escapeMarkup(text)}</li>`,
  );
  return `<div class="panel"><ul>\n${items.join("\n")}\n</ul></div>`;
}

function factTable(facts: readonly Fact[]): string {
  if (facts.length === 0) return "";
  const rows = facts.map(({ name, value }) => [escapeMarkup(name), `<code>${escapeMarkup(value)}</code>`]);
  const body = rows.map((row) => `<tr>${row.map((cell) => `<td>${cell}</td>`).join("")}</tr>`).join("\n");
  return `<div class="table"><table class="facts">\n${body}\n</table></div>`;
}
