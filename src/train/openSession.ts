import type { QueueDevice } from "../tensor/index.ts";
import type { TrainConfig } from "./config.ts";
import type { Team } from "./dataParallel.ts";
import { PipelineSession } from "./pipeline/pipelineSession.ts";
import type { Session, TokenRoles } from "./rankSession.ts";
import { TrainSession } from "./session.ts";

/** A rank's session: of the whole model, or of some of its stages. */
export function openSession(
  device: QueueDevice,
  config: TrainConfig,
  roles: TokenRoles,
  team: Team | null = null,
): Session {
  const pipeline = team?.pipeline;
  return team === null || pipeline === undefined
    ? new TrainSession(device, config, roles, team)
    : new PipelineSession(device, config, roles, { ...team, pipeline });
}
