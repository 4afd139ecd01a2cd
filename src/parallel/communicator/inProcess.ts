/**
 * Several ranks in one process: a queue for each, one pool of threads for all, one JavaScript thread.
 *
 * Each rank is an async function of its own; where one awaits its queue, the others go on. Nothing is installed and
 * nothing is sent over a wire, and yet the commands are those of many machines.
 */
import { ConfigError } from "../../base/index.ts";
import {
  type Endpoint,
  type Isa,
  NativeBackend,
  NativeHub,
  QueueDevice,
  ReferenceBackend,
  ReferenceHub,
} from "../../tensor/index.ts";
import type { Communicator } from "./communicator.ts";
import { QueueCommunicator } from "./queueCommunicator.ts";

export interface InProcessOptions {
  readonly backend: "native" | "reference";
  /** Memory that the tensors of one rank may take. */
  readonly limitBytes: number;
  /** Threads that compute, shared by all ranks; all of the machine's by default. The reference has one. */
  readonly threads?: number;
  readonly isa?: Isa;
  /** How long a rank waits for a message before all end with an error; 600 by default. */
  readonly timeoutSeconds?: number;
}

/** One communicator a rank, in the order of their ranks. Their devices are the caller's to dispose. */
export function inProcess(ranks: number, options: InProcessOptions): readonly Communicator[] {
  if (!Number.isInteger(ranks) || ranks < 1) {
    throw new ConfigError(`${ranks} ranks are asked for`, {
      why: "a run has one rank or more",
      fix: "pass --ranks 1 or a larger number",
      fields: { ranks },
    });
  }
  const places =
    options.backend === "native" ? nativePlaces(ranks, options) : referencePlaces(ranks, options);
  return places.map(({ device, endpoint }, rank) => {
    device.backend.connect(endpoint);
    return QueueCommunicator.world(device, endpoint, rank, ranks);
  });
}

interface Place {
  readonly device: QueueDevice;
  readonly endpoint: Endpoint;
}

function nativePlaces(
  ranks: number,
  { limitBytes, threads, isa, timeoutSeconds }: InProcessOptions,
): Place[] {
  const hub = new NativeHub(ranks, threads, timeoutSeconds);
  return Array.from({ length: ranks }, (_, rank) => {
    const backend = new NativeBackend({
      pool: hub.pool,
      reserveBytes: limitBytes,
      ...(isa === undefined ? {} : { isa }),
    });
    return { device: new QueueDevice(backend, limitBytes), endpoint: hub.endpoint(rank) };
  });
}

function referencePlaces(ranks: number, { limitBytes, timeoutSeconds }: InProcessOptions): Place[] {
  const hub = new ReferenceHub(ranks, timeoutSeconds);
  return Array.from({ length: ranks }, (_, rank) => ({
    device: new QueueDevice(new ReferenceBackend(), limitBytes),
    endpoint: hub.endpoint(rank),
  }));
}
