/** What EPLB makes of loads that were measured: the busiest device's load over the mean, before and after. */
import { ConfigError } from "../base/index.ts";
import type { ModelConfig } from "../model/index.ts";
import { gpuLoads, placeExperts } from "../parallel/index.ts";
import type { ServingUnit } from "./serving.ts";

/** Tokens by layer and expert. */
export type ExpertLoads = readonly (readonly number[])[];

export interface ExpertBalance {
  readonly unit: ServingUnit;
  /** False where the nodes do not divide the expert groups: all devices are one pool. */
  readonly isHierarchical: boolean;
  readonly devices: number;
  /** By layer: busiest device over the mean, experts in their order without copies. */
  readonly before: readonly number[];
  /** The same with copies and placement of EPLB. */
  readonly after: readonly number[];
  /** Copies of the most copied expert, by layer. */
  readonly mostCopies: readonly number[];
}

/** @throws {ConfigError} if the loads are not of this model */
export function balanceExperts(config: ModelConfig, loads: ExpertLoads, unit: ServingUnit): ExpertBalance {
  const experts = config.nRoutedExperts;
  for (const [layer, load] of loads.entries()) {
    if (load.length === experts) continue;
    throw new ConfigError(`layer ${layer} of the loads has ${load.length} experts, the model ${experts}`, {
      why: "a load belongs to one routed expert",
      fix: "give loads of this model, or name the model that they are of with --model",
      fields: { layer, found: load.length, experts },
    });
  }
  // Without copies a device may have to hold one expert more than another.
  const replicas = Math.ceil((experts + unit.redundantExperts) / unit.devices) * unit.devices;
  const layout = { replicas, groups: config.nGroup, nodes: unit.nodes, gpus: unit.devices };
  const placements = placeExperts(loads, layout);
  return {
    unit,
    isHierarchical: config.nGroup % unit.nodes === 0,
    devices: unit.devices,
    before: loads.map((load) => busiest(contiguous(load, unit.devices))),
    after: loads.map((load, layer) => busiest(gpuLoads(load, placements[layer]!, unit.devices))),
    mostCopies: placements.map(({ slotsOf }) => Math.max(...slotsOf.map((slots) => slots.length))),
  };
}

function contiguous(load: readonly number[], devices: number): number[] {
  const perDevice = Math.ceil(load.length / devices);
  return Array.from({ length: devices }, (_, device) =>
    load.slice(device * perDevice, (device + 1) * perDevice).reduce((sum, tokens) => sum + tokens, 0),
  );
}

/** 1 where all have the same, and where nothing was routed. */
function busiest(loads: readonly number[]): number {
  const mean = loads.reduce((sum, load) => sum + load, 0) / loads.length;
  return mean === 0 ? 1 : Math.max(...loads) / mean;
}
