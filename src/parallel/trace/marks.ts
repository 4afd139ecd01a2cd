/** What commands belong to, as marks on a queue: actions of a plan, or a word for any other part of a step. */
import { writeAction } from "../schedule/notation.ts";
import { type Action, type Chunk, type PipelinePlan, stageOf } from "../schedule/plan.ts";
import type { SpanChunk } from "./spans.ts";

export interface MarkedWork {
  readonly name: string;
  readonly chunks: readonly SpanChunk[];
}

/** @param index  of an action in its rank's list */
export function actionMark(index: number): string {
  return `action ${index}`;
}

/** Reads the marks of one rank of a pipeline; a mark that is no action is the name of what it stands for. */
export function readMark(plan: PipelinePlan | null, rank: number): (mark: string) => MarkedWork {
  const known = new Map<string, MarkedWork>();
  for (const [i, action] of (plan?.actions[rank] ?? []).entries()) {
    known.set(actionMark(i), { name: writeAction(plan!, action), chunks: spanChunks(plan!, rank, action) });
  }
  return (mark) => known.get(mark) ?? { name: mark === "" ? "other work" : mark, chunks: [] };
}

export function spanChunks(plan: PipelinePlan, rank: number, action: Action): readonly SpanChunk[] {
  const of = (pass: SpanChunk["pass"], chunk: Chunk): SpanChunk => ({
    pass,
    stage: stageOf(plan, { rank, chunk }),
    ...chunk,
  });
  return action.kind === "overlapped"
    ? [of("forward", action.forward), of("backward", action.backward)]
    : [of(action.kind, action.chunk)];
}
