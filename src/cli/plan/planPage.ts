/** A plan as a page that needs nothing but itself: the pipeline drawn, the tables of the terminal below it. */
import { ganttPage, simulatedSpans } from "../../parallel/index.ts";
import { layoutText } from "../../planner/index.ts";
import { escapeMarkup, htmlTable } from "../../run/index.ts";
import {
  assumptionLines,
  bubbleLines,
  bubbleRows,
  heading,
  memoryRows,
  type PlanReport,
  pipelineSource,
  timeRows,
  trafficLines,
} from "./trainingText.ts";

export function planPage(report: PlanReport): string {
  const { model, cluster, plan } = report;
  return ganttPage({
    title: `${model} on ${cluster.name}: ${layoutText(plan.layout)}`,
    source: `One step, simulated (${pipelineSource(plan)}). ${heading(report).join(". ")}.`,
    ranks: simulatedSpans(plan.pipeline, plan.simulation),
    sections: [
      ...plan.warnings.map((warning) => `<p class="status failed">${escapeMarkup(warning)}</p>`),
      section("A step", tableOf(timeRows(report))),
      section("Bubbles", paragraphs(bubbleLines(report))),
      section("Bubbles of even stages with these chunks", tableOf(bubbleRows(report))),
      section("Memory of a device", tableOf(memoryRows(report))),
      section("All-to-all of a device", paragraphs(trafficLines(report))),
      section("What the uncalibrated figures assume", paragraphs(assumptionLines(cluster))),
    ].join("\n"),
  });
}

function section(title: string, body: string): string {
  return `<section>\n<h2>${title}</h2>\n${body}\n</section>`;
}

function tableOf([head = [], ...rows]: readonly (readonly string[])[]): string {
  const escaped = (row: readonly string[]): string[] => row.map((cell) => escapeMarkup(cell.trim()));
  return `<div class="numbers">${htmlTable(escaped(head), rows.map(escaped))}</div>`;
}

function paragraphs(lines: readonly string[]): string {
  return lines.map((line) => `<p>${escapeMarkup(line.trim())}</p>`).join("\n");
}
