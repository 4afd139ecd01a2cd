/**
 * The embedding's gradient from MTP, on its way from the last stage to the first.
 *
 * Both stages lie on one rank, but under DualPipe they compute different halves of the micro-batches there: what MTP adds
 * to a block of one half belongs to the rank where that half's first stage is. So it goes there, block by block, and
 * is added where one process adds it: once, at the end of the block.
 */
import {
  type Chunk,
  type Communicator,
  holderOf,
  type Pending,
  type PipelinePlan,
} from "../../parallel/index.ts";
import { add, copyInto, fill, type Parameter } from "../../tensor/index.ts";

/** Apart from all tags of chunks. */
const TAG = 16;

export class SharedEmbedding {
  readonly #plan: PipelinePlan;
  readonly #communicator: Communicator;
  readonly #sent: Pending[] = [];

  constructor(plan: PipelinePlan, communicator: Communicator) {
    this.#plan = plan;
    this.#communicator = communicator;
  }

  /** From the last stage: hands over what MTP has added since the last block, and begins anew. */
  send({ grad }: Parameter, chunk: Chunk): void {
    const { device } = this.#communicator;
    const to = holderOf(this.#plan, 0, chunk)!.rank;
    using copy = device.temporary(grad!.shape, grad!.dtype);
    copyInto(grad!, copy);
    fill(grad!, 0);
    this.#sent.push(this.#communicator.exchange([{ to, x: copy }], [], TAG + chunk.direction));
  }

  /** At the first stage: adds it to the block's gradient. */
  receive({ grad }: Parameter, chunk: Chunk): void {
    const { device } = this.#communicator;
    const from = holderOf(this.#plan, this.#plan.stages - 1, chunk)!.rank;
    using _scope = device.scope();
    const part = device.empty(grad!.shape, grad!.dtype);
    this.#communicator.exchange([], [{ from, y: part }], TAG + chunk.direction).wait();
    copyInto(add(grad!, part), grad!);
  }

  /** At the end of the step: the last of them may be read after all chunks of this rank. */
  settle(): void {
    for (const pending of this.#sent.splice(0)) pending.wait();
  }
}
