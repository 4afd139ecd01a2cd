/**
 * The stages that one rank of a pipeline holds, and with whom it shares each.
 *
 * A stage's gradients come from several ranks (parallel/holders.ts). In the order of the blocks that they compute, these
 * are a tree's leaves like any data-parallel ranks, so that one reduction serves all layouts.
 */
import {
  type ExpertShare,
  type LayerRange,
  type ModelConfig,
  ParameterFactory,
  type Precision,
  Stage,
} from "../../model/index.ts";
import {
  type Communicator,
  directionsOf,
  type PipelineLayout,
  type PipelinePlan,
  splitStages,
  stageHolders,
} from "../../parallel/index.ts";
import type { Parameter } from "../../tensor/index.ts";
import { DataParallel } from "../dataParallel.ts";
import { GradientTree } from "../gradientTree.ts";

/** One stage at one rank. */
export interface Module {
  readonly stage: Stage;
  /** Which stage of the pipeline it is, from 0. */
  readonly index: number;
  readonly factory: ParameterFactory;
  /** World ranks that hold it, in the order of the blocks that they compute. */
  readonly holders: readonly number[];
  readonly dataParallel: DataParallel;
  /** Of the gradients that come with each part of a backward. */
  readonly trees: Readonly<Record<"input" | "weight", GradientTree>>;
}

export interface ModuleOptions {
  /** All ranks of the run. */
  readonly world: Communicator;
  readonly layout: PipelineLayout;
  readonly zero1: boolean;
  readonly plan: PipelinePlan;
  /** This rank among those of its pipeline. */
  readonly pipelineRank: number;
  readonly config: ModelConfig;
  readonly precision: Precision;
  readonly gradientShards: number;
  /** Of the routed experts, those of this rank; null for all. */
  readonly share: ExpertShare | null;
}

/** Makes the stages of a rank, by module of the plan. */
export function makeModules(options: ModuleOptions): readonly Module[] {
  const { plan, pipelineRank, config } = options;
  const held = plan.stagesOf[pipelineRank]!;
  const ranges = splitStages(config, plan.stages);
  const modules: Module[] = [];
  // Lower stages first: the last shares the first's embedding, and both ranks of a pair must form their groups in one order.
  for (const module of [...held.keys()].sort((a, b) => held[a]! - held[b]!)) {
    const first = modules[held.indexOf(0)]?.stage ?? null;
    modules[module] = makeModule(options, held[module]!, ranges[held[module]!]!, first);
  }
  return modules;
}

function makeModule(
  { world, layout, zero1, plan, config, precision, gradientShards, share }: ModuleOptions,
  index: number,
  range: LayerRange,
  first: Stage | null,
): Module {
  const { device } = world;
  const experts = share === null ? {} : { experts: share };
  const factory = new ParameterFactory(device, config, { precision, isTrained: true, ...experts });
  const stage = new Stage(config, factory, range, first?.embedTokens ?? null);
  const holders = stageHolders(layout, plan, index);
  const directions = directionsOf(plan);
  const team = { communicator: world.split(holders), zero1, ep: share?.senders ?? 1 };
  const blocks = gradientShards / layout.dp / directions;
  const { parameters } = factory;
  const otherSenders = factory.experts.flatMap(({ bySender }) => bySender.slice(1));
  return {
    stage,
    index,
    factory,
    holders,
    dataParallel: new DataParallel(team, parameters, { experts: factory.experts, directions }),
    trees: {
      input: new GradientTree(device, parameters.filter(comesWithInput), blocks),
      weight: new GradientTree(
        device,
        [...parameters.filter((parameter) => !comesWithInput(parameter)), ...otherSenders],
        blocks,
      ),
    },
  };
}

/**
 * Whether its gradient falls out of the input's: a norm's gain, and the head, which never keeps its logits. Where weight
 * parts wait, these are a block ahead of the others.
 */
function comesWithInput({ shape, path }: Parameter): boolean {
  return shape.length === 1 || path === "lmHead.weight";
}
