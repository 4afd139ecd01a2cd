/**
 * The stages that one rank of a pipeline holds, and with whom it shares each.
 *
 * A stage's gradients come from several ranks (parallel/holders.ts). In the order of the blocks that they compute, these
 * are a tree's leaves like any data-parallel ranks, so that one reduction serves all layouts.
 */
import {
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
  { world, layout, zero1, plan, config, precision, gradientShards }: ModuleOptions,
  index: number,
  range: LayerRange,
  first: Stage | null,
): Module {
  const { device } = world;
  const factory = new ParameterFactory(device, config, { precision, isTrained: true });
  const stage = new Stage(config, factory, range, first?.embedTokens ?? null);
  const holders = stageHolders(layout, plan, index);
  const team = { communicator: world.split(holders), zero1 };
  const blocks = gradientShards / layout.dp / directionsOf(plan);
  return {
    stage,
    index,
    factory,
    holders,
    dataParallel: new DataParallel(team, factory.parameters),
    trees: {
      input: new GradientTree(device, factory.parameters.filter(comesWithInput), blocks),
      weight: new GradientTree(
        device,
        factory.parameters.filter((parameter) => !comesWithInput(parameter)),
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
