/** Messages between native queues of one process: a face of the kernels' hub that says which rank is meant. */
import { availableParallelism } from "node:os";
import { BackendError } from "../../../base/index.ts";
import type { Endpoint, HubLink } from "../backend.ts";
import { checkedLink, checkedTimeout } from "../link.ts";
import { MESSAGE_TIMEOUT_SECONDS } from "../messageFailure.ts";
import {
  loadAddon,
  type NativeEndpoint,
  type NativeHub as NativeHubHandle,
  type NativePool,
} from "./addon.ts";

export class NativeHub {
  readonly ranks: number;
  readonly timeoutSeconds: number;
  /** One for all ranks: their regions take turns, so that R ranks do not start R times the machine's threads. */
  readonly pool: NativePool;
  readonly #hub: NativeHubHandle;

  /**
   * @param threads  of the pool; all of the machine's by default
   * @param link  imitated; without one messages are there at once
   * @throws {BackendError} if the addon cannot be loaded; {ConfigError} for impossible times
   */
  constructor(
    ranks: number,
    threads: number = availableParallelism(),
    timeoutSeconds: number = MESSAGE_TIMEOUT_SECONDS,
    link?: HubLink,
  ) {
    const { addon, reason } = loadAddon();
    if (addon === null) {
      throw new BackendError("native ranks cannot be started", {
        why: reason,
        fix: "install Rust (https://rustup.rs) and run npm run build; the reference backend works without it, slowly",
        fields: { reason },
      });
    }
    this.ranks = ranks;
    this.timeoutSeconds = checkedTimeout(timeoutSeconds);
    this.pool = addon.createPool(threads);
    this.#hub = addon.createHub(ranks, timeoutSeconds, checkedLink(link));
  }

  endpoint(rank: number): NativeHubEndpoint {
    return new NativeHubEndpoint(this.#hub.endpoint(rank));
  }
}

/** What one native queue is connected to. */
export class NativeHubEndpoint implements Endpoint {
  readonly rank: number;
  /** As the addon knows it. */
  readonly endpoint: NativeEndpoint;

  constructor(endpoint: NativeEndpoint) {
    this.rank = endpoint.rank;
    this.endpoint = endpoint;
  }

  abort(why: string): void {
    this.endpoint.abort(why);
  }
}
