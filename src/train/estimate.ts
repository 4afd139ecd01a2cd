/**
 * What a run will take, before it starts: the step itself, run on a backend that only counts.
 *
 * The allocator is the real one, so the high-water mark of native memory is exact; the process around it is
 * measured as it stands.
 */
import { PlanBackend, QueueDevice } from "../tensor/index.ts";
import type { TrainConfig } from "./config.ts";
import { scheduleAt } from "./schedule.ts";
import { TrainSession } from "./session.ts";

export interface StepEstimate {
  /** Highest address that tensors will reach, in bytes. */
  readonly nativeBytes: number;
  /** Bytes by purpose. */
  readonly parts: Readonly<Record<"weights" | "gradients" | "moments" | "averages" | "activations", number>>;
}

export async function estimateStep(config: TrainConfig): Promise<StepEstimate> {
  const backend = new PlanBackend();
  const device = new QueueDevice(backend, Number.MAX_SAFE_INTEGER);
  const session = new TrainSession(device, config, { padId: 0, eosId: 0 });
  session.initialize();
  const standing = device.arena.liveBytes;
  // Every micro-batch gets the addresses of the first, but a tree of gradient shards grows with the whole step.
  const count = config.gradientShards === 1 ? config.microBatchRows : config.batchRows;
  const tokens = new Int32Array(count * (config.rowLength + 1));
  const scheduled = scheduleAt(config, { step: config.steps, share: 1 });
  await session.runner.compute({ tokens, count, rowLength: config.rowLength }, scheduled);
  session.runner.commit(scheduled);

  const { parameters, tied } = session.factory;
  const bytes = (tensors: readonly ({ storage: { bytes: number } } | null)[]): number =>
    tensors.reduce((sum, tensor) => sum + (tensor?.storage.bytes ?? 0), 0);
  const nativeBytes = device.arena.highWaterBytes;
  return {
    nativeBytes,
    parts: {
      weights: bytes(parameters.flatMap((p) => [p.master, p.panels, p.panelsT])),
      gradients: bytes([...parameters, ...tied.map(({ alias }) => alias)].map((p) => p.grad)),
      moments: bytes(session.optimizer.moments.flatMap(({ m, v }) => [m, v])),
      averages: bytes(session.optimizer.averages),
      activations: nativeBytes - standing,
    },
  };
}
