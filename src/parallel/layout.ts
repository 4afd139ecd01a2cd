/**
 * Which rank is what: the data-parallel, expert-parallel and pipeline places of every rank of a launch.
 *
 * The world has dp x pp ranks. The ranks of one stage stand next to each other, so that a node holds neighbours of
 * data and expert parallelism, which talk most. A layout says how a run is computed, never what comes out: equal
 * `gradientShards` give equal bits in every legal layout.
 */
import { ConfigError } from "../base/index.ts";
import type { ModelConfig } from "../model/index.ts";
import { directionsOf } from "./holders.ts";
import type { Schedule } from "./schedule/plan.ts";
import { planSchedule } from "./schedule/planSchedule.ts";
import { splitStages } from "./stages.ts";

/** Ranks that hold different layers, each with copies for different rows, and the order in which they work. */
export interface PipelineLayout {
  readonly dp: number;
  readonly pp: number;
  readonly schedule: Schedule;
}

export interface Layout {
  /** Ranks that compute different rows of a step with the same weights. */
  readonly dp: number;
  /** Of those, neighbours that share the experts of a layer; divides dp. */
  readonly ep: number;
  /** Ranks that hold different layers. */
  readonly pp: number;
  /** Moments and averages of a weight lie at one of the dp ranks only. */
  readonly zero1: boolean;
  /** In which order the ranks of a pipeline work; says nothing where pp is 1. */
  readonly schedule: Schedule;
}

/** Of the numbers of a run, those that a layout must fit. */
export interface CutNumbers {
  readonly gradientShards: number;
  /** Rows of the smallest step. */
  readonly batchRows: number;
  readonly microBatchRows: number;
  readonly model: Pick<ModelConfig, "numHiddenLayers" | "numNextnPredictLayers">;
}

const KEYS = ["dp", "ep", "pp"] as const;

/** `dp=4,ep=2`: what is not named is 1. */
export function parseLayout(text: string): Pick<Layout, (typeof KEYS)[number]> {
  const layout = { dp: 1, ep: 1, pp: 1 };
  const seen = new Set<string>();
  for (const part of text.split(",")) {
    const [, key, digits] = /^\s*([a-z]+)\s*=\s*([1-9]\d{0,6})\s*$/.exec(part) ?? [];
    const name = KEYS.find((candidate) => candidate === key);
    if (name === undefined || seen.has(name)) {
      throw new ConfigError(`${JSON.stringify(text)} is no layout`, {
        why: `a layout names each of ${KEYS.join(", ")} once at most, with a whole number of ranks from 1`,
        fix: "write for example --layout dp=4 or --layout dp=4,ep=2,pp=1",
        fields: { layout: text, part },
      });
    }
    seen.add(name);
    layout[name] = Number(digits);
  }
  return layout;
}

export function worldSize({ dp, pp }: Layout): number {
  return dp * pp;
}

/** As it is typed: `dp=4,ep=2,pp=1`. */
export function layoutText(layout: Layout): string {
  return KEYS.map((key) => `${key}=${layout[key]}`).join(",");
}

/**
 * @param ranks  of the launch
 * @throws {ConfigError} if the layout is impossible, or does not fit the launch or the run's numbers
 */
export function checkLayout(layout: Layout, ranks: number, numbers: CutNumbers): void {
  const { gradientShards } = numbers;
  const { dp, ep, pp } = layout;
  const text = layoutText(layout);
  if (worldSize(layout) !== ranks) {
    throw new ConfigError(
      `the layout ${text} is for ${ranksOf(worldSize(layout))}, and there ${ranks === 1 ? "is" : "are"} ${ranks}`,
      {
        why: "every rank has one place: dp x pp places for as many ranks",
        fix: `start ${ranksOf(worldSize(layout))}, or use --layout dp=${ranks}`,
        fields: { layout: text, ranks },
      },
    );
  }
  if (dp % ep !== 0) {
    throw new ConfigError(`the layout ${text} has ep=${ep}, which does not divide dp=${dp}`, {
      why: "ranks that share experts are groups of equal size among the data-parallel ranks of a stage",
      fix: `choose ep among the divisors of ${dp}`,
      fields: { layout: text, dp, ep },
    });
  }
  if (!isPowerOfTwo(gradientShards / dp)) throw uneven(dp, gradientShards);
  if (pp > 1) checkPipeline(layout, numbers);
}

/** @throws {ConfigError} if the schedule cannot have these numbers of ranks, micro-batches, layers or shards */
function checkPipeline({ dp, pp, schedule }: Layout, numbers: CutNumbers): void {
  const { batchRows, microBatchRows, gradientShards, model } = numbers;
  const plan = planSchedule(schedule, { ranks: pp, microBatches: batchRows / microBatchRows / dp });
  splitStages(model, plan.stages);
  if (model.numNextnPredictLayers > 0 && plan.stagesOf[0]!.length === 1) {
    throw new ConfigError(`schedule ${schedule} cannot train MTP modules`, {
      why: "they share embedding and head, which lie on one rank under dualpipe and dualpipev only",
      fix: "use --schedule dualpipe or dualpipev, or --set model.numNextnPredictLayers=0",
      fields: { schedule, numNextnPredictLayers: model.numNextnPredictLayers },
    });
  }
  const runs = dp * directionsOf(plan);
  if (!isPowerOfTwo(gradientShards / runs)) throw uneven(runs, gradientShards);
}

/** Of a model, what says how its experts may be shared. */
export interface RoutedModel {
  readonly nRoutedExperts: number;
  /** Groups of neighbouring experts. */
  readonly nGroup: number;
}

/**
 * @param ranksPerNode  where tokens shall cross once between nodes; null where ranks send to one another straight
 * @throws {ConfigError} if the routed experts cannot be shared by the ranks of an expert group
 */
export function checkExperts(
  { ep }: Pick<Layout, "ep">,
  { nRoutedExperts: experts, nGroup }: RoutedModel,
  ranksPerNode: number | null = null,
): void {
  if (!isPowerOfTwo(ep) || experts % ep !== 0) {
    throw new ConfigError(`${experts} routed experts cannot be shared by ${ep} ranks`, {
      why: "each rank holds as many, and the ranks' gradients are added in pairs, then pairs of pairs",
      fix: `choose ep among the powers of two that divide ${experts}`,
      fields: { experts, ep },
    });
  }
  if (ranksPerNode === null) return;
  const nodes = ep / ranksPerNode;
  if (!Number.isInteger(nodes)) {
    throw new ConfigError(`${ep} ranks share the experts, ${ranksPerNode} of them on a node`, {
      why: "a token goes to the rank with the sender's own number in another node: a group has whole nodes",
      fix: `choose --ranks-per-node among the divisors of ep=${ep}, or leave it out`,
      fields: { ep, ranksPerNode },
    });
  }
  if (nGroup % nodes === 0) return;
  throw new ConfigError(`${nGroup} groups of experts do not lie on ${nodes} nodes`, {
    why: "a node sums the answers of whole groups: otherwise sums would depend on where experts lie",
    fix: `use nodes whose number divides the model's nGroup, or leave --ranks-per-node out`,
    fields: { nGroup, nodes, ranksPerNode },
  });
}

function uneven(dp: number, gradientShards: number): ConfigError {
  const legal = Array.from({ length: gradientShards }, (_, i) => i + 1).filter((count) =>
    isPowerOfTwo(gradientShards / count),
  );
  return new ConfigError(`${gradientShards} gradient shards cannot be cut into ${dp} equal parts`, {
    why: "each data-parallel rank, and under dualpipe each direction, sums a subtree of the tree of shards: 1, 2, 4, ... of them",
    fix:
      gradientShards === 1
        ? `start the run with --set gradientShards=${dp}, or a power of two times that, and microBatchRows small enough`
        : `use ${legal.join(", ")} of them, or start the run with --set gradientShards=${dp} times a power of two`,
    fields: { dp, gradientShards, legal },
  });
}

/** False for what is no whole number. */
function isPowerOfTwo(value: number): boolean {
  return Number.isInteger(value) && value > 0 && Number.isInteger(Math.log2(value));
}

function ranksOf(count: number): string {
  return count === 1 ? "1 rank" : `${count} ranks`;
}
