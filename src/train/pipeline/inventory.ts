/**
 * What every stage of a pipeline holds and who owns it, also where this rank holds none of it: names and shapes, made on
 * a device that has no memory.
 */
import { type ModelConfig, ParameterFactory, type Precision, Stage } from "../../model/index.ts";
import {
  assignOwners,
  type PipelineLayout,
  type PipelinePlan,
  splitStages,
  stageHolders,
} from "../../parallel/index.ts";
import { PlanBackend, QueueDevice } from "../../tensor/index.ts";

export interface Held {
  /** World ranks with a copy, in the order of the blocks that they compute. */
  readonly holders: readonly number[];
  /** The one of them that sums its gradient; with ZeRO-1 the only one with its moments. */
  readonly owner: number;
}

/** Every parameter and router bias of the model, by path. */
export type Inventory = ReadonlyMap<string, Held>;

export function takeInventory(
  config: ModelConfig,
  precision: Precision,
  layout: PipelineLayout,
  plan: PipelinePlan,
): Inventory {
  const device = new QueueDevice(new PlanBackend(), Number.MAX_SAFE_INTEGER);
  const inventory = new Map<string, Held>();
  let first: Stage | null = null;
  for (const [index, range] of splitStages(config, plan.stages).entries()) {
    const factory = new ParameterFactory(device, config, { precision, isTrained: false });
    const stage: Stage = new Stage(config, factory, range, first?.embedTokens ?? null);
    first ??= stage;
    const holders = stageHolders(layout, plan, index);
    const bytes = factory.parameters.map(({ master }) => master.storage.bytes);
    const owners = assignOwners(bytes, holders.length);
    for (const [i, { path }] of factory.parameters.entries())
      inventory.set(path, { holders, owner: holders[owners[i]!]! });
    for (const { path } of factory.buffers) inventory.set(path, { holders, owner: holders[0]! });
  }
  return inventory;
}
