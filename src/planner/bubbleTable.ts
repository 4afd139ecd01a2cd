/**
 * Bubble and memory of the pipeline schedules in closed form, exact where all stages are even.
 *
 * Source: DeepSeek-V3 report, table 2; DualPipeV from the released DualPipe.
 */
import type { ChunkCosts, Schedule } from "../parallel/index.ts";

export interface BubbleRow {
  readonly schedule: Schedule;
  /** In the unit of the chunk's times. */
  readonly bubble: number;
  /** Copies of a stage's parameters that a device holds. */
  readonly parameters: 1 | 2;
  /** Chunks whose activations a device holds at once. */
  readonly chunks: number;
  readonly devices: number;
}

/** @param stages  PP: of the pipeline, even */
export function bubbleTable(stages: number, chunk: ChunkCosts): readonly BubbleRow[] {
  const row = (schedule: Schedule, rest: Omit<BubbleRow, "schedule" | "bubble">): BubbleRow => ({
    schedule,
    bubble: bubbleFormula(schedule, stages, chunk),
    ...rest,
  });
  return [
    row("1f1b", { parameters: 1, chunks: stages, devices: stages }),
    row("zb", { parameters: 1, chunks: stages, devices: stages }),
    row("dualpipe", { parameters: 2, chunks: stages + 1, devices: stages }),
    row("dualpipev", { parameters: 2, chunks: stages + 1, devices: stages / 2 }),
  ];
}

/** `backward` is the full one, of which `weight` is a part; `overlapped` a pair of it and a forward. */
export function bubbleFormula(
  schedule: Schedule,
  stages: number,
  { forward, backward, weight, overlapped }: ChunkCosts,
): number {
  switch (schedule) {
    case "1f1b":
      return (stages - 1) * (forward + backward);
    case "zb":
      return (stages - 1) * (forward + backward - 2 * weight);
    case "dualpipe":
    case "dualpipev":
      return (stages / 2 - 1) * (overlapped + backward - 3 * weight);
  }
}
