/**
 * Actions as the field writes them: `F>0` is micro-batch 0 forwards, `B` its full backward, `Bi` its input part, `W`
 * its weight part, `F>7&B<3` a pair.
 *
 * `>` is a rank's first stage and `<` its second, each with its own count of micro-batches; ranks with one stage write
 * neither.
 */
import type { Action, Chunk, PipelinePlan } from "./plan.ts";

const letters = { forward: "F", backward: "B", backwardInput: "Bi", backwardWeight: "W" } as const;

export function writeAction(plan: PipelinePlan, action: Action): string {
  if (action.kind === "overlapped") {
    return `F${writeChunk(plan, action.forward)}&B${writeChunk(plan, action.backward)}`;
  }
  return letters[action.kind] + writeChunk(plan, action.chunk);
}

function writeChunk(
  { stagesOf, microBatches }: PipelinePlan,
  { module, direction, microBatch }: Chunk,
): string {
  const arrow = stagesOf[0]!.length === 1 ? "" : module === 0 ? ">" : "<";
  return `${arrow}${direction === 0 ? microBatch : microBatch - microBatches / 2}`;
}
