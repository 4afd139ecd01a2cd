/** One rank's actions as they are planned: every phase runs its micro-batches in order, weight parts wait in one FIFO. */
import { invariant } from "../../base/index.ts";
import type { Action, Chunk } from "./plan.ts";

export type Phase = 0 | 1;

/** The chunk of a phase's micro-batch, counted from 0 in each phase. */
export type PhaseChunk = (phase: Phase, index: number) => Chunk;

export class ActionList {
  readonly actions: Action[] = [];
  readonly #chunkOf: PhaseChunk;
  readonly #forwarded: [number, number] = [0, 0];
  readonly #backwarded: [number, number] = [0, 0];
  readonly #weights: Chunk[] = [];

  constructor(chunkOf: PhaseChunk) {
    this.#chunkOf = chunkOf;
  }

  forward(phase: Phase): void {
    this.actions.push({ kind: "forward", chunk: this.#nextForward(phase) });
  }

  backward(phase: Phase): void {
    this.actions.push({ kind: "backward", chunk: this.#nextBackward(phase) });
  }

  overlapped(forward: Phase, backward: Phase): void {
    this.actions.push({
      kind: "overlapped",
      forward: this.#nextForward(forward),
      backward: this.#nextBackward(backward),
    });
  }

  backwardInput(phase: Phase): void {
    const chunk = this.#nextBackward(phase);
    this.actions.push({ kind: "backwardInput", chunk });
    this.#weights.push(chunk);
  }

  backwardWeight(): void {
    const chunk = this.#weights.shift();
    invariant(chunk !== undefined, "a weight part is planned that no backward has left");
    this.actions.push({ kind: "backwardWeight", chunk });
  }

  /** Weight parts that wait. */
  get pending(): number {
    return this.#weights.length;
  }

  #nextForward(phase: Phase): Chunk {
    return this.#chunkOf(phase, this.#forwarded[phase]++);
  }

  #nextBackward(phase: Phase): Chunk {
    return this.#chunkOf(phase, this.#backwarded[phase]++);
  }
}
