/**
 * What a run will take, before it starts: the step itself, run on a backend that only counts.
 *
 * The allocator is the real one, so the high-water mark of native memory is exact; the process around it is
 * measured as it stands.
 */
import { type Layout, QueueCommunicator, worldSize } from "../parallel/index.ts";
import { type Parameter, PlanBackend, QueueDevice, type Tensor } from "../tensor/index.ts";
import type { TrainConfig } from "./config.ts";
import { type Team, teamFor } from "./dataParallel.ts";
import { openSession } from "./openSession.ts";
import { scheduleAt } from "./schedule.ts";

export interface StepEstimate {
  /** Highest address that tensors will reach, in bytes. */
  readonly nativeBytes: number;
  /** Of the weights that are multiplied: their packed copies and FP8 scales. */
  readonly gemmWeightBytes: number;
  /** Activations that a micro-batch keeps from its forward pass for its way back. */
  readonly cachedActivationBytes: number;
  /** Bytes by purpose. */
  readonly parts: Readonly<Record<"weights" | "gradients" | "moments" | "averages" | "activations", number>>;
}

/** One of the ranks of a layout. */
export interface Seat {
  readonly layout: Layout;
  readonly rank: number;
  readonly ranksPerNode?: number | null;
}

/** @param seat  null for one rank alone */
export async function estimateStep(config: TrainConfig, seat: Seat | null = null): Promise<StepEstimate> {
  const backend = new PlanBackend();
  const device = new QueueDevice(backend, Number.MAX_SAFE_INTEGER);
  const session = openSession(device, config, { padId: 0, eosId: 0 }, teamOf(device, seat));
  session.initialize();
  const standing = device.arena.liveBytes;
  // Every micro-batch gets the addresses of the first, so one for each block is as good as all; a pipeline has many in flight.
  const count =
    seat !== null && seat.layout.pp > 1 ? config.batchRows : config.gradientShards * config.microBatchRows;
  const tokens = new Int32Array(count * (config.rowLength + 1));
  const scheduled = scheduleAt(config, { step: config.steps, share: 1 });
  await session.runner.compute({ tokens, count, rowLength: config.rowLength }, scheduled);
  session.runner.commit(scheduled);

  const parameters = session.heldFactories.flatMap((factory) => factory.parameters);
  const others = session.heldFactories.flatMap(({ tied, experts }) => [
    ...tied.map(({ alias }) => alias),
    ...experts.flatMap(({ bySender }) => bySender.slice(1)),
  ]);
  // The first rank of a pipeline has the whole model once more, to evaluate and to write it.
  const whole =
    session.heldFactories.includes(session.factory) || session.factory.device !== device
      ? []
      : session.factory.parameters;
  const bytes = (tensors: readonly ({ storage: { bytes: number } } | null)[]): number =>
    tensors.reduce((sum, tensor) => sum + (tensor?.storage.bytes ?? 0), 0);
  const nativeBytes = device.arena.highWaterBytes;
  return {
    nativeBytes,
    gemmWeightBytes: bytes(parameters.flatMap(packed)),
    cachedActivationBytes: session.runner.cachedBytes,
    parts: {
      weights: bytes([...parameters, ...whole].flatMap((p) => [p.master, ...packed(p)])),
      gradients: bytes([...parameters, ...others].map((p) => p.grad)) + session.runner.treeBytes,
      moments: bytes(session.optimizer.moments.flatMap(({ m, v }) => [m, v])),
      averages: bytes(session.optimizer.averages),
      activations: nativeBytes - standing,
    },
  };
}

/** The ranks of a plan exchange nothing: a plan has no numbers. */
function teamOf(device: QueueDevice, seat: Seat | null): Team | null {
  if (seat === null) return null;
  const { layout, rank, ranksPerNode = null } = seat;
  const nobody = { abort: () => undefined };
  const communicator = QueueCommunicator.world(device, nobody, rank, worldSize(layout));
  return teamFor(communicator, layout, ranksPerNode);
}

/**
 * What FP8 takes fewer bytes for, beside the same run in bf16; nothing for a run in another precision.
 *
 * @param seat  the one that `estimate` is of
 */
export async function besideBf16(
  config: TrainConfig,
  estimate: StepEstimate,
  seat: Seat | null = null,
): Promise<readonly { readonly name: string; readonly bytes: number; readonly bf16Bytes: number }[]> {
  if (config.precision !== "fp8") return [];
  const bf16 = await estimateStep({ ...config, precision: "bf16" }, seat);
  const weights = {
    name: "weights to multiply",
    bytes: estimate.gemmWeightBytes,
    bf16Bytes: bf16.gemmWeightBytes,
  };
  // In a pipeline several micro-batches are in flight, and no single one is counted.
  if (estimate.cachedActivationBytes === 0) return [weights];
  const { cachedActivationBytes: bytes } = estimate;
  return [weights, { name: "cached activations", bytes, bf16Bytes: bf16.cachedActivationBytes }];
}

function packed({ panels, panelsT, scales }: Parameter): readonly (Tensor | null)[] {
  return [panels, panelsT, scales];
}
