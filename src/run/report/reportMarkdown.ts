/** The report as Markdown: the same facts as the page, for terminals, pull requests and text searches. */
import { formatDuration, formatInteger, formatScalar, formatShare } from "../../base/index.ts";
import { printable } from "../terminal/printable.ts";
import { balanceBounds, balanceWindow, type Fact, layerName, type ReportData } from "./reportData.ts";
import { sparkline, thin } from "./series.ts";

export function reportMarkdown(data: ReportData): string {
  const { summary } = data;
  const sections = [
    `# ${summary.runId}`,
    `${summary.status} · begun ${summary.started} · minke ${summary.version}`,
    table(
      ["figure", "value"],
      data.headline.map(({ name, value }) => [name, value]),
    ),
    ...lossSection(data),
    ...section("Against simple models", data.baselines.length > 0, () =>
      table(
        ["", "bits per byte"],
        data.baselines.map(({ name, bitsPerByte, isModel }) => [
          isModel ? `**${name}**` : name,
          bitsPerByte.toFixed(3),
        ]),
      ),
    ),
    ...section("Expert load", data.worstLoads.length > 0, () => balanceText(data)),
    ...section("Samples", data.samples.length > 0, () => sampleText(data)),
    ...section("What happened", data.incidents.length > 0, () =>
      data.incidents
        .map(({ step, text }) => `- ${step === null ? "" : `step ${step}: `}${inline(text)}`)
        .join("\n"),
    ),
    ...section("Time", data.phases.length > 0, () =>
      table(
        ["phase", "time"],
        data.phases.map(({ name, seconds }) => [name, formatDuration(seconds)]),
      ),
    ),
    ...(["model", "data", "memory", "machine", "settings"] as const).flatMap((name) =>
      section(`${name[0]!.toUpperCase()}${name.slice(1)}`, data.facts[name].length > 0, () =>
        factTable(data.facts[name]),
      ),
    ),
  ];
  return `${sections.join("\n\n")}\n`;
}

function section(title: string, isThere: boolean, text: () => string): string[] {
  return isThere ? [`## ${title}`, text()] : [];
}

function lossSection({ steps, evaluations }: ReportData): string[] {
  if (steps.length === 0) return [];
  const points = thin(
    steps.map(({ step, mainLoss }) => ({ x: step, y: mainLoss })),
    60,
  );
  const rows = evaluations.map(({ step, loss, bitsPerByte, nextNextTokenAccuracy }) => [
    formatInteger(step),
    loss === null ? "not finite" : formatScalar(loss),
    bitsPerByte === null ? "–" : bitsPerByte.toFixed(3),
    nextNextTokenAccuracy === null ? "–" : formatShare(nextNextTokenAccuracy),
  ]);
  const first = formatScalar(steps[0]!.mainLoss);
  const last = formatScalar(steps.at(-1)!.mainLoss);
  const heading = [
    "## Loss",
    `Training loss from ${first} to ${last}: \`${sparkline(points.map(({ y }) => y))}\``,
  ];
  if (rows.length === 0) return heading;
  return [...heading, table(["step", "validation loss", "bits per byte", "next-next token"], rows)];
}

function balanceText(data: ReportData): string {
  const rows = data.worstLoads.map(({ layer, highest, lowest }) => [
    layerName(layer, data),
    `${highest.max.toFixed(3)} (steps ${highest.firstStep}–${highest.lastStep})`,
    `${lowest.min.toFixed(3)} (steps ${lowest.firstStep}–${lowest.lastStep})`,
  ]);
  const intro = `Worst windows of ${balanceWindow} steps after the first fifth, as multiples of the layer's mean. Aim: most loaded at most ${balanceBounds.max}, least loaded at least ${balanceBounds.min}.`;
  return `${intro}\n\n${table(["layer", "most loaded expert", "least loaded expert"], rows)}`;
}

function sampleText({ samples }: ReportData): string {
  return samples
    .map(({ step, prompt, text }) => {
      const quoted = `${prompt}${text}`.split(/\r?\n/).map((line) => `> ${inline(line)}`);
      return `Step ${formatInteger(step)}:\n\n${quoted.join("\n>\n")}`;
    })
    .join("\n\n");
}

function factTable(facts: readonly Fact[]): string {
  return table(
    ["", ""],
    facts.map(({ name, value }) => [name, `\`${value.replaceAll("`", "'")}\``]),
  );
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(head), `|${head.map(() => "---").join("|")}|`, ...rows.map(line)].join("\n");
}

/** Text of a model or a user on one line, that must not become markup. */
function inline(text: string): string {
  return printable(text)
    .replaceAll("\n", " ")
    .replaceAll(/[\\`*_[\]<>#|~]/g, "\\$&");
}
