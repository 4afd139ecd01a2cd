/** Some steps of a run recorded on every rank: what each queue did, on one clock. */
import { type Communicator, gatherJson, type RankSpans, RankTracer } from "../parallel/index.ts";
import type { Session } from "./rankSession.ts";

/** Steps that build the recordings and touch the memory come first: they are not what a step is. */
const WARM_UP = 2;

export interface TraceRequest {
  /** Steps that are recorded, after the first two. */
  readonly steps: number;
  /** Takes the spans of all ranks, in their order; called on the first rank. */
  keep(ranks: readonly RankSpans[]): Promise<void>;
}

/** Every rank calls the same around the same steps. */
export class StepTrace {
  readonly #session: Session;
  readonly #communicator: Communicator;
  readonly #request: TraceRequest;
  #taken = 0;
  #tracer: RankTracer | null = null;

  constructor(session: Session, communicator: Communicator, request: TraceRequest) {
    this.#session = session;
    this.#communicator = communicator;
    this.#request = request;
  }

  async beforeStep(): Promise<void> {
    if (this.#taken !== WARM_UP) return;
    const { pipeline } = this.#session;
    this.#tracer = await RankTracer.begin(this.#communicator, pipeline === null ? {} : { pipeline });
  }

  async afterStep(): Promise<void> {
    this.#taken++;
    await this.#tracer?.collect();
    if (this.#taken === WARM_UP + this.#request.steps) await this.end();
  }

  /** Keeps what has been recorded, if anything was and was not kept before. */
  async end(): Promise<void> {
    const tracer = this.#tracer;
    this.#tracer = null;
    if (tracer === null) return;
    const all = await gatherJson(this.#communicator, await tracer.end());
    if (this.#communicator.rank === 0) await this.#request.keep(all);
  }
}
