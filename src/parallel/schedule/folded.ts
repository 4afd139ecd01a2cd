/**
 * The eight steps that DualPipe and DualPipeV share: in both, a rank computes two stages, and micro-batches on their
 * way down the pipeline meet others on their way back.
 *
 * Phase 0 is the way that reaches this rank first, phase 1 the other. What a phase is (a direction in DualPipe, a half
 * of the stages in DualPipeV) is the caller's.
 *
 * Source: DeepSeek-V3 report, section 3.2.1 and figure 5; the counts of the steps are the released schedule's.
 */
import { ActionList, type PhaseChunk } from "./actionList.ts";
import type { Action } from "./plan.ts";

export interface FoldedRank {
  /** Ranks from where micro-batches enter to the fold. */
  readonly depth: number;
  /** Where this rank stands: 0 is the entering end, depth - 1 the fold. */
  readonly position: number;
  /** Micro-batches of each phase. */
  readonly perPhase: number;
  readonly chunkOf: PhaseChunk;
}

/** What one rank does, in order. */
export function foldedActions({ depth, position, perPhase, chunkOf }: FoldedRank): readonly Action[] {
  const list = new ActionList(chunkOf);
  const toFold = depth - position - 1;
  const fromEnd = position + 1;

  // Step 1: nF0
  repeat(2 * toFold, () => list.forward(0));

  // Step 2: nF0F1
  repeat(fromEnd, () => {
    list.forward(0);
    list.forward(1);
  });

  // Step 3: nB1W1F1. The weight part fills the time until the input of the forward is there.
  repeat(toFold, () => {
    list.backwardInput(1);
    list.backwardWeight();
    list.forward(1);
  });

  // Step 4, the main one: nF0B1F1B0
  repeat(perPhase - 2 * depth + fromEnd, (iteration) => {
    if (iteration === 0 && toFold === 0) {
      // At the fold the gradient comes later than the forward's input: a pair would wait for both.
      list.forward(0);
      list.backward(1);
    } else {
      list.overlapped(0, 1);
    }
    list.overlapped(1, 0);
  });

  // Step 5: nB1F1B0
  repeat(toFold, () => {
    list.backward(1);
    list.overlapped(1, 0);
  });

  // Step 6: nB1B0. In its second half weight parts are put off: other ranks wait for the gradients of inputs.
  repeat(2 * fromEnd, (index) => {
    const phase = index % 2 === 0 ? 1 : 0;
    if (index < fromEnd) list.backward(phase);
    else list.backwardInput(phase);
  });

  // Step 7: nWB0
  repeat(toFold, () => {
    list.backwardWeight();
    list.backwardInput(0);
  });

  // Step 8: nW
  repeat(fromEnd, () => list.backwardWeight());
  return list.actions;
}

function repeat(count: number, body: (iteration: number) => void): void {
  for (let iteration = 0; iteration < count; iteration++) body(iteration);
}
