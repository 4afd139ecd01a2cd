/** A simulated plan as the spans that ranks would record. */
import { writeAction } from "../schedule/notation.ts";
import type { PipelinePlan } from "../schedule/plan.ts";
import type { Simulation } from "../simulate/simulate.ts";
import { spanChunks } from "./marks.ts";
import type { RankSpans } from "./spans.ts";

export function simulatedSpans(plan: PipelinePlan, simulation: Simulation): readonly RankSpans[] {
  return simulation.spans.map((spans, rank) => ({
    rank,
    spans: spans.map(({ action, start, end }) => ({
      name: writeAction(plan, action),
      category: "compute",
      start,
      end,
      chunks: spanChunks(plan, rank, action),
    })),
  }));
}
