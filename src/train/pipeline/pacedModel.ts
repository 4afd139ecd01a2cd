/**
 * A model whose chunks take a given time and compute nothing: the queue sleeps where kernels would run, and messages
 * are real. So a machine of few cores can carry out a pipeline of many ranks as it would be with a core for each.
 *
 * With experts, each layer of a chunk goes to the ranks of its group and back again, as dispatch and combine do, with
 * its attention before and its experts between them.
 */
import type { Stream } from "../../model/index.ts";
import {
  type Action,
  actionDurations,
  type Chunk,
  type Communicator,
  type PipelinePlan,
  postAllToAll,
  type SimulationCosts,
  stageOf,
} from "../../parallel/index.ts";
import { fill, pause, type QueueDevice, type Tape, type Tensor } from "../../tensor/index.ts";
import type { PipelineModel } from "./executor.ts";

export interface PacedParts {
  readonly plan: PipelinePlan;
  /** Of the pipeline. */
  readonly rank: number;
  readonly device: QueueDevice;
  /** In seconds, as the simulator takes them. */
  readonly costs: SimulationCosts;
  /** [T, D] of what goes from stage to stage. */
  readonly shape: readonly [number, number];
  readonly experts?: PacedExperts;
}

export interface PacedExperts {
  /** The ranks among which experts are, of one stage. */
  readonly group: Communicator;
  readonly layers: number;
  /** That each rank sends to each other one, for a dispatch as for a combine. */
  readonly bytes: number;
}

const HEADER_BYTES = 1024;

/** Of the exchanges of a way: those of a pair's two chunks come in pieces by turns. */
const TAGS = { forward: 0, backward: 1 } as const;

/** What a part of a chunk takes: forward, and of its backward the input's and the weights' part. */
interface PartCosts {
  readonly forward: number;
  readonly input: number;
  readonly weight: number;
}

export class PacedModel implements PipelineModel {
  readonly recomputes = false;
  readonly #parts: PacedParts;
  /** Seconds of an action of this rank. */
  readonly #duration: (action: Action) => number;
  /** What a pair takes as a share of what its chunks take one by one, for either chunk. */
  readonly #pairShares: Map<string, number> = new Map();

  constructor(parts: PacedParts) {
    this.#parts = parts;
    const durations = actionDurations(parts.costs, parts.plan);
    this.#duration = (action) => durations(parts.rank, action);
    for (const action of parts.plan.actions[parts.rank]!) {
      if (action.kind !== "overlapped") continue;
      const { forward, backward } = action;
      const apart =
        this.#duration({ kind: "forward", chunk: forward }) +
        this.#duration({ kind: "backward", chunk: backward });
      const share = apart === 0 ? 1 : this.#duration(action) / apart;
      this.#pairShares.set(`forward ${chunkKey(forward)}`, share);
      this.#pairShares.set(`backward ${chunkKey(backward)}`, share);
    }
  }

  get boundary(): PipelineModel["boundary"] {
    return { shape: this.#parts.shape, residual: "f32", update: "bf16" };
  }

  forward(chunk: Chunk, input: Stream | null, tape: Tape): Stream | null {
    const { plan, rank, device, experts, shape } = this.#parts;
    const stage = stageOf(plan, { rank, chunk });
    const costs = this.#costs(chunk);
    let x = input?.residual ?? device.empty(shape, "f32");
    if (experts === undefined) x = this.#compute(x, costs, tape);
    for (let layer = 0; layer < (experts?.layers ?? 0); layer++) {
      const half = scaled(costs, 0.5 / experts!.layers);
      x = this.#compute(x, half, tape);
      // How many tokens come, each rank tells the others before they go.
      this.#travel(x, experts!.group, HEADER_BYTES, TAGS.forward);
      x = this.#exchange(x, experts!, tape);
      x = this.#compute(x, half, tape);
      x = this.#exchange(x, experts!, tape);
    }
    if (stage < plan.stages - 1) {
      const update = device.empty(shape, "bf16");
      fill(update, 0);
      return { residual: x, update };
    }
    tape.seed(x, x);
    return null;
  }

  finished(): void {}

  #costs(chunk: Chunk): PartCosts {
    const share = (pass: string): number => this.#pairShares.get(`${pass} ${chunkKey(chunk)}`) ?? 1;
    return {
      forward: this.#duration({ kind: "forward", chunk }) * share("forward"),
      input: this.#duration({ kind: "backwardInput", chunk }) * share("backward"),
      weight: this.#duration({ kind: "backwardWeight", chunk }) * share("backward"),
    };
  }

  #compute(x: Tensor, { forward, input, weight }: PartCosts, tape: Tape): Tensor {
    const { device } = this.#parts;
    const y = device.empty(x.shape, "f32");
    fill(y, 0);
    pause(device, forward);
    tape.record({
      op: "paced",
      inputs: [x],
      outputs: [y],
      saved: [],
      inputGrad: () => {
        pause(device, input);
        const grad = device.empty(x.shape, "f32");
        fill(grad, 0);
        return [grad];
      },
      weightGrad: () => pause(device, weight),
    });
    return y;
  }

  #exchange(x: Tensor, { group, bytes }: PacedExperts, tape: Tape): Tensor {
    const travel = (tag: number): Tensor => this.#travel(x, group, bytes, tag);
    const y = travel(TAGS.forward);
    tape.record({
      op: "pacedExchange",
      inputs: [x],
      outputs: [y],
      saved: [],
      inputGrad: () => [travel(TAGS.backward)],
    });
    return y;
  }

  /** As long as it takes to send so many bytes to each other rank, and to get as many. */
  #travel(x: Tensor, group: Communicator, bytes: number, tag: number): Tensor {
    const { device } = this.#parts;
    const rows = device.empty([group.size, Math.ceil(bytes / 4)], "f32");
    fill(rows, 0);
    postAllToAll(group, rows, tag).wait();
    const y = device.empty(x.shape, "f32");
    fill(y, 0);
    return y;
  }
}

function scaled({ forward, input, weight }: PartCosts, factor: number): PartCosts {
  return { forward: forward * factor, input: input * factor, weight: weight * factor };
}

function chunkKey({ module, direction, microBatch }: Chunk): string {
  return `${module} ${direction} ${microBatch}`;
}
