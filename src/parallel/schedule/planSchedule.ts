import { planDualPipe } from "./dualPipe.ts";
import { planDualPipeV } from "./dualPipeV.ts";
import { plan1F1B } from "./oneForwardOneBackward.ts";
import type { PipelinePlan, PipelineSize, Schedule } from "./plan.ts";
import { planZeroBubble } from "./zeroBubble.ts";

const planners: Readonly<Record<Schedule, (size: PipelineSize) => PipelinePlan>> = {
  "1f1b": plan1F1B,
  zb: planZeroBubble,
  dualpipe: planDualPipe,
  dualpipev: planDualPipeV,
};

export const schedules: readonly Schedule[] = ["1f1b", "zb", "dualpipe", "dualpipev"];

/** @throws {ConfigError} if a plan of this schedule cannot have these numbers */
export function planSchedule(schedule: Schedule, size: PipelineSize): PipelinePlan {
  return planners[schedule](size);
}
