/** Records what one rank's queue does, on the clock that all ranks share. */
import { BackendError } from "../../base/index.ts";
import { type HubLink, TracedBackend } from "../../tensor/index.ts";
import type { Communicator } from "../communicator/communicator.ts";
import type { PipelinePlan } from "../schedule/plan.ts";
import { clockOffset } from "./clock.ts";
import { CommandSpans } from "./commandSpans.ts";
import { readMark } from "./marks.ts";
import type { RankSpans } from "./spans.ts";

export interface TracerOptions {
  /** The pipeline whose actions are marked, and this rank's number in it. */
  readonly pipeline?: { readonly plan: PipelinePlan; readonly rank: number };
  /** What messages travel by, where it is known. */
  readonly link?: HubLink;
}

export class RankTracer {
  readonly #world: Communicator;
  readonly #traced: TracedBackend;
  readonly #spans: CommandSpans;
  readonly #options: TracerOptions;

  private constructor(
    world: Communicator,
    traced: TracedBackend,
    spans: CommandSpans,
    options: TracerOptions,
  ) {
    this.#world = world;
    this.#traced = traced;
    this.#spans = spans;
    this.#options = options;
  }

  /**
   * Begins on every rank at once; no message may be open.
   *
   * @param world  the communicator of all ranks
   * @throws {BackendError} if the device's queue is not a traced one
   */
  static async begin(world: Communicator, options: TracerOptions = {}): Promise<RankTracer> {
    const { pipeline } = options;
    const { backend } = world.device;
    if (!(backend instanceof TracedBackend)) {
      throw new BackendError("this queue keeps no times", {
        why: "a trace is made of what a traced native queue has noted",
        fix: "use the native backend, and open the ranks for tracing",
        fields: { backend: backend.name },
      });
    }
    await world.device.drain();
    backend.start();
    const offset = await clockOffset(world, backend);
    const read = readMark(pipeline?.plan ?? null, pipeline?.rank ?? 0);
    return new RankTracer(world, backend, new CommandSpans(read, offset), options);
  }

  /** Takes over what has run since the last time, when all of it has. */
  async collect(): Promise<void> {
    await this.#world.device.drain();
    this.#spans.add(this.#traced.take());
  }

  /** Forgets what has run since the last time: every rank at the same place, with no message open. */
  async discard(): Promise<void> {
    await this.#world.device.drain();
    this.#traced.take();
  }

  /** Ends the recording. */
  async end(): Promise<RankSpans> {
    await this.collect();
    this.#traced.stop();
    const { spans, sends } = this.#spans;
    const { link, pipeline } = this.#options;
    return {
      ...{ rank: this.#world.rank, spans, sends },
      ...(link === undefined ? {} : { link }),
      ...(pipeline === undefined ? {} : { pipeline: sizeOf(pipeline.plan) }),
    };
  }
}

function sizeOf({ schedule, ranks, microBatches }: PipelinePlan): NonNullable<RankSpans["pipeline"]> {
  return { schedule, ranks, microBatches };
}
