/** A simulated plan as the spans that ranks would record. */
import { writeAction } from "../schedule/notation.ts";
import { type Action, type Chunk, type PipelinePlan, stageOf } from "../schedule/plan.ts";
import type { Simulation } from "../simulate/simulate.ts";
import type { RankSpans, SpanChunk } from "./spans.ts";

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

function spanChunks(plan: PipelinePlan, rank: number, action: Action): readonly SpanChunk[] {
  const of = (pass: SpanChunk["pass"], chunk: Chunk): SpanChunk => ({
    pass,
    stage: stageOf(plan, { rank, chunk }),
    ...chunk,
  });
  return action.kind === "overlapped"
    ? [of("forward", action.forward), of("backward", action.backward)]
    : [of(action.kind, action.chunk)];
}
