/** Plans for programs: what the text says, in SI units. */
import { countParameters } from "../../model/index.ts";
import { assumptionsOf, bubbleTable, publishedV3, type Sweep } from "../../planner/index.ts";
import type { PlanReport } from "./trainingText.ts";

export function planJson({ model, config, cluster, plan, tokens, isPublished }: PlanReport): unknown {
  const { stages, chunks, exposed, spread, traffic, handover } = plan.roofline;
  return {
    schema: 1,
    model,
    parameters: countParameters(config),
    cluster,
    layout: plan.layout,
    size: plan.size,
    tokens,
    microBatches: plan.microBatches,
    microBatchTokens: plan.microBatchTokens,
    times: plan.times,
    bubbles: bubbleTable(stages.length, plan.times[0]!.chunk),
    published: isPublished ? publishedV3 : null,
    memory: plan.memory,
    peakChunks: plan.peakChunks,
    parametersPerRank: plan.parametersPerRank,
    stages: stages.map((stage, index) => ({ ...stage, chunk: chunks[index], exposed: exposed[index] })),
    spread,
    traffic,
    handover,
    warnings: plan.warnings,
    assumptions: assumptionsOf(cluster),
  };
}

export function sweepJson({ rows, refused }: Sweep, seconds: number): unknown {
  return {
    schema: 1,
    seconds,
    rows,
    refused: refused.map(({ kind, count, problem }) => ({ kind, count, example: problem.what })),
  };
}
