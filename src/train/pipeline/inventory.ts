/**
 * What every stage of a pipeline holds and who owns it, also where this rank holds none of it: names and shapes, made on
 * a device that has no memory.
 */
import {
  type ExpertShare,
  type ModelConfig,
  ParameterFactory,
  type Precision,
  Stage,
} from "../../model/index.ts";
import {
  assignShare,
  directionsOf,
  type Held,
  type PipelineLayout,
  type PipelinePlan,
  splitStages,
  stageHolders,
} from "../../parallel/index.ts";
import { PlanBackend, QueueDevice } from "../../tensor/index.ts";

/**
 * Every parameter and router bias of the model, by path, in world ranks: once, and where ranks share the routed experts,
 * their weights once for each share, in the order of the experts. Holders stand in the order of their blocks.
 */
export type Inventory = ReadonlyMap<string, readonly Held[]>;

/** @param share  of the experts, any rank's; null where each has all */
export function takeInventory(
  config: ModelConfig,
  precision: Precision,
  layout: PipelineLayout,
  plan: PipelinePlan,
  share: ExpertShare | null,
): Inventory {
  const device = new QueueDevice(new PlanBackend(), Number.MAX_SAFE_INTEGER);
  const inventory = new Map<string, readonly Held[]>();
  const ep = share?.senders ?? 1;
  const experts = share === null ? {} : { experts: share };
  let first: Stage | null = null;
  for (const [index, range] of splitStages(config, plan.stages).entries()) {
    const factory = new ParameterFactory(device, config, { precision, isTrained: false, ...experts });
    const stage: Stage = new Stage(config, factory, range, first?.embedTokens ?? null);
    first ??= stage;
    const holders = stageHolders(layout, plan, index);
    const tensors = factory.parameters.map((parameter) => ({
      bytes: parameter.master.storage.bytes,
      isRouted: factory.expertsOf(parameter) !== null,
    }));
    const sharing = { ranks: holders.length, ep, directions: directionsOf(plan) };
    const byShare = Array.from({ length: ep }, (_, at) => assignShare(tensors, sharing, at));
    for (const [i, { path }] of factory.parameters.entries()) {
      const parts = tensors[i]!.isRouted ? byShare : byShare.slice(0, 1);
      inventory.set(
        path,
        parts.map((held) => inWorld(held[i]!, holders)),
      );
    }
    for (const { path } of factory.buffers) inventory.set(path, [{ holders, owner: holders[0]! }]);
  }
  return inventory;
}

/** @param group  world rank of each rank of a group */
function inWorld({ holders, owner }: Held, group: readonly number[]): Held {
  return { holders: holders.map((rank) => group[rank]!), owner: group[owner]! };
}
