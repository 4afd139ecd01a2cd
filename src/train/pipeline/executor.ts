/**
 * Obeys a pipeline plan: one rank's actions become commands of its queue, and messages to and from its neighbours.
 *
 * Nothing is decided here. The plan says which chunk is next; an activation comes from the stage before and a gradient
 * from the stage behind, whoever holds them. A forward leaves a tape, a backward uses it up, an input-only backward
 * leaves a bundle of weight parts in the rank's one FIFO.
 *
 * Source: DeepSeek-V3 report, section 3.2.1.
 */
import { invariant } from "../../base/index.ts";
import type { Stream } from "../../model/index.ts";
import {
  type Action,
  answeredAt,
  type Chunk,
  type Communicator,
  holderOf,
  neededBy,
  type Pending,
  type PipelineMessage,
  type PipelinePlan,
  stageOf,
} from "../../parallel/index.ts";
import { type Dtype, type Shape, Tape, type Tensor, type WeightBundle } from "../../tensor/index.ts";

/** What the executor asks of the rank's part of the model. */
export interface PipelineModel {
  readonly recomputes: boolean;
  /** Of what crosses from stage to stage. */
  readonly boundary: { readonly shape: Shape; readonly residual: Dtype; readonly update: Dtype };
  /**
   * Builds a chunk, records it on the tape and seeds the losses that are in it.
   *
   * @param input  null in the first stage
   * @returns      null in the last
   */
  forward(chunk: Chunk, input: Stream | null, tape: Tape): Stream | null;
  /** After a part of a chunk's backward, and with it the gradients that the part adds to those of its module. */
  finished(chunk: Chunk, part: "input" | "weight"): void;
}

/** A forward whose backward is to come. */
interface Flight {
  readonly tape: Tape;
  readonly input: Stream | null;
  readonly output: Stream | null;
}

/** Messages on their way to an action. */
interface Arriving {
  readonly activation: Stream | null;
  readonly gradient: Tensor | null;
  readonly pending: Pending;
}

export class PipelineExecutor {
  readonly #plan: PipelinePlan;
  readonly #communicator: Communicator;
  readonly #model: PipelineModel;
  readonly #answered: readonly (readonly number[])[];

  /** @param communicator  the ranks of one pipeline, numbered as in the plan */
  constructor(plan: PipelinePlan, communicator: Communicator, model: PipelineModel) {
    this.#plan = plan;
    this.#communicator = communicator;
    this.#model = model;
    this.#answered = answeredAt(plan, communicator.rank);
  }

  /** Enqueues the forward and backward of all micro-batches of a step. */
  enqueue(): void {
    const { rank } = this.#communicator;
    const actions = this.#plan.actions[rank]!;
    const run = new PlanRun(this.#plan, this.#communicator, this.#model);
    let next: Arriving | null = null;
    for (const [i, action] of actions.entries()) {
      const arriving: Arriving = next ?? run.post(action);
      // One action ahead: what the neighbour sends travels while this one computes.
      const following = actions[i + 1];
      next = following === undefined ? null : run.post(following);
      arriving.pending.wait();
      for (const earlier of this.#answered[i]!) run.settle(earlier);
      run.perform(i, action, arriving);
    }
    run.end();
  }
}

/** One step on one rank. */
class PlanRun {
  readonly #plan: PipelinePlan;
  readonly #communicator: Communicator;
  readonly #model: PipelineModel;
  readonly #flights: Map<string, Flight> = new Map();
  readonly #weights: { readonly chunk: Chunk; readonly bundle: WeightBundle }[] = [];
  /** Sends by the action that posted them. */
  readonly #sent: Map<number, Pending[]> = new Map();

  constructor(plan: PipelinePlan, communicator: Communicator, model: PipelineModel) {
    this.#plan = plan;
    this.#communicator = communicator;
    this.#model = model;
  }

  /** Says where the messages go that an action needs. */
  post(action: Action): Arriving {
    const { rank, device } = this.#communicator;
    const { shape, residual, update } = this.#model.boundary;
    let activation: Stream | null = null;
    let gradient: Tensor | null = null;
    const pending: Pending[] = [];
    for (const message of neededBy(this.#plan, rank, action)) {
      const receive = (y: Tensor): void => {
        pending.push(this.#communicator.exchange([], [{ from: message.sender, y }], tagOf(message)));
      };
      if (message.kind === "activation") {
        activation = { residual: device.temporary(shape, residual), update: device.temporary(shape, update) };
        for (const tensor of tensorsOf(activation)) receive(tensor);
      } else {
        gradient = device.temporary(shape, residual);
        receive(gradient);
      }
    }
    const wait = (): void => {
      for (const each of pending) each.wait();
    };
    return { activation, gradient, pending: { wait } };
  }

  /** Awaits what an action has sent. */
  settle(action: number): void {
    for (const pending of this.#sent.get(action) ?? []) pending.wait();
    this.#sent.delete(action);
  }

  perform(index: number, action: Action, { activation, gradient }: Arriving): void {
    switch (action.kind) {
      case "forward":
        this.#forward(index, action.chunk, activation);
        break;
      case "backward":
        this.#backward(index, action.chunk, gradient, "full");
        break;
      case "backwardInput":
        this.#backward(index, action.chunk, gradient, "input");
        break;
      case "backwardWeight":
        this.#backwardWeight(action.chunk);
        break;
      case "overlapped":
        this.#forward(index, action.forward, activation);
        this.#backward(index, action.backward, gradient, "full");
        break;
    }
  }

  end(): void {
    for (const action of [...this.#sent.keys()]) this.settle(action);
    invariant(this.#flights.size === 0, "every forward has its backward");
    invariant(this.#weights.length === 0, "every weight part has been computed");
  }

  #forward(index: number, chunk: Chunk, input: Stream | null): void {
    const { device } = this.#communicator;
    const tape = new Tape(device, { recomputes: this.#model.recomputes });
    using _scope = device.scope();
    const output = this.#model.forward(chunk, input, tape);
    this.#flights.set(keyOf(chunk), { tape, input, output });
    if (output !== null) this.#send(index, "activation", chunk, tensorsOf(output));
    // What the way back reads of it the tape holds.
    if (input !== null) for (const tensor of tensorsOf(input)) tensor.dispose();
  }

  #backward(index: number, chunk: Chunk, gradient: Tensor | null, parts: "full" | "input"): void {
    const flight = this.#flights.get(keyOf(chunk));
    invariant(flight !== undefined, "a backward follows its forward");
    this.#flights.delete(keyOf(chunk));
    const { tape, input, output } = flight;
    using _tape = tape;
    if (gradient !== null && output !== null) {
      // What is added to the stream has the stream's gradient.
      for (const tensor of tensorsOf(output)) tape.seed(tensor, gradient);
      gradient.dispose();
    }
    if (parts === "full") tape.backward();
    else this.#weights.push({ chunk, bundle: tape.backwardInput() });
    if (input !== null) this.#send(index, "gradient", chunk, [tape.gradOf(input.residual)!]);
    this.#model.finished(chunk, "input");
    if (parts === "full") this.#model.finished(chunk, "weight");
  }

  #backwardWeight(chunk: Chunk): void {
    const oldest = this.#weights.shift();
    invariant(
      oldest !== undefined && keyOf(oldest.chunk) === keyOf(chunk),
      "weight parts leave in their order",
    );
    using bundle = oldest.bundle;
    bundle.run();
    this.#model.finished(chunk, "weight");
  }

  #send(index: number, kind: PipelineMessage["kind"], chunk: Chunk, tensors: readonly Tensor[]): void {
    const { rank } = this.#communicator;
    const stage = stageOf(this.#plan, { rank, chunk });
    const place = holderOf(this.#plan, kind === "activation" ? stage + 1 : stage - 1, chunk);
    invariant(place !== null, "only inner boundaries are crossed");
    const message = { kind, from: chunk, to: place.chunk, sender: rank, receiver: place.rank };
    const pending = tensors.map((x) =>
      this.#communicator.exchange([{ to: place.rank, x }], [], tagOf(message)),
    );
    this.#sent.set(index, [...(this.#sent.get(index) ?? []), ...pending]);
  }
}

/** Between stages an update is always pending: every stage has a layer. */
function tensorsOf({ residual, update }: Stream): readonly Tensor[] {
  invariant(update !== null, "a stage ends with a layer");
  return [residual, update];
}

/** Between two ranks messages of one kind, direction and module come in the order of their micro-batches. */
function tagOf({ kind, to }: PipelineMessage): number {
  return (kind === "activation" ? 0 : 4) + 2 * to.direction + to.module;
}

function keyOf({ module, direction, microBatch }: Chunk): string {
  return `${module} ${direction} ${microBatch}`;
}
