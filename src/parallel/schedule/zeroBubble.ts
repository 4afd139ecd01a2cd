/**
 * ZB1P (ZeroBubble's H1): 1F1B with its backward split, weight parts moved to where a rank would wait.
 *
 * Rank r may put off r weight parts; it runs the oldest one after a backward that would exceed them, and whenever its
 * next pass is still at least a weight part away. The rest drains at the end. How far away the next pass is is reckoned
 * with unit costs (F = B's input part = W = 1), which makes the order plain data like the others'.
 *
 * Bubble (PP - 1)(F + B - 2W); at most PP micro-batches from forward to weight part, as in 1F1B.
 */
import { invariant } from "../../base/index.ts";
import { ActionList } from "./actionList.ts";
import { advanceRanks } from "./advance.ts";
import { type Pass, passOrder, straightChunk } from "./oneForwardOneBackward.ts";
import { frozenPlan, type PipelinePlan, type PipelineSize, requirePipelineSize } from "./plan.ts";

/** A rank while its order is made: what is left to plan, and its clock in units. */
interface PlannedRank {
  readonly list: ActionList;
  readonly passes: readonly Pass[];
  next: number;
  free: number;
  /** When each micro-batch's forward and input gradients are done here. */
  readonly forwardEnds: number[];
  readonly backwardEnds: number[];
}

export function planZeroBubble({ ranks, microBatches }: PipelineSize): PipelinePlan {
  requirePipelineSize("zb", { ranks, microBatches }, { isEven: false, microBatchesPerRank: 0 });
  const planned = Array.from(
    { length: ranks },
    (_, rank): PlannedRank => ({
      list: new ActionList((_phase, microBatch) => straightChunk(microBatch)),
      passes: passOrder(ranks, microBatches, rank),
      next: 0,
      free: 0,
      forwardEnds: [],
      backwardEnds: [],
    }),
  );
  planPasses(planned);
  for (const { list } of planned) while (list.pending > 0) list.backwardWeight();
  return frozenPlan({
    schedule: "zb",
    ranks,
    microBatches,
    stages: ranks,
    stagesOf: planned.map((_, rank) => [rank]),
    actions: planned.map(({ list }) => list.actions),
  });
}

function planPasses(planned: readonly PlannedRank[]): void {
  advanceRanks(planned.length, (rank) => {
    const one = planned[rank]!;
    const pass = one.passes[one.next];
    const ready = pass && readyTime(planned, rank, pass);
    if (ready === undefined) return false;
    planPass(one, pass!, ready, rank);
    one.next++;
    return true;
  });
  invariant(
    planned.every(({ next, passes }) => next === passes.length),
    "the ranks of a plan wait for each other in a circle",
  );
}

function planPass(one: PlannedRank, { pass, microBatch }: Pass, ready: number, mostPending: number): void {
  while (one.list.pending > 0 && ready - one.free >= 1) runWeightPart(one);
  one.free = Math.max(one.free, ready) + 1;
  if (pass === "forward") {
    one.list.forward(0);
    one.forwardEnds[microBatch] = one.free;
    return;
  }
  one.list.backwardInput(0);
  one.backwardEnds[microBatch] = one.free;
  if (one.list.pending > mostPending) runWeightPart(one);
}

function runWeightPart(one: PlannedRank): void {
  one.list.backwardWeight();
  one.free++;
}

/** When the input of a pass is there; undefined while the rank that makes it has not come so far. */
function readyTime(
  planned: readonly PlannedRank[],
  rank: number,
  { pass, microBatch }: Pass,
): number | undefined {
  if (pass === "forward") return rank === 0 ? 0 : planned[rank - 1]!.forwardEnds[microBatch];
  const source = planned[rank + 1];
  return source === undefined ? planned[rank]!.forwardEnds[microBatch] : source.backwardEnds[microBatch];
}
