/** What backends say of messages, in the same words. */
import { BackendError, CollectiveError } from "../../base/index.ts";

/** How long a rank waits for one ticket's messages before it gives up. Work of one rank that may take longer goes with words to wait on. */
export const MESSAGE_TIMEOUT_SECONDS = 600;

/** Why a rank's peers end when it is disposed too early. */
export const DISPOSED_WITH_MESSAGES = "its queue was disposed with messages open";

/** The error of a message command; as a rule it is another rank that has failed. */
export function messageFailure(op: string, label: string, reason: string, cause: unknown): CollectiveError {
  return new CollectiveError(`${op}${label === "" ? "" : ` at ${label}`} failed: ${reason}`, {
    why: "ranks that exchange messages go on together or end together",
    fix: "if another rank is named, its own error is the cause; else see that all ranks run the same commands on the same data",
    fields: { op, label, reason },
    cause,
  });
}

/** @throws {BackendError} in place of what a transport says when it refuses a queue */
export function connecting(connect: () => void): void {
  try {
    connect();
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new BackendError(`the queue cannot be connected: ${reason}`, {
      why: "each queue has an endpoint of its own, or the table of a transport that was built for this version",
      fix: "take an endpoint of the hub for each queue; build the MPI addon again: node scripts/build-mpi.js",
      fields: { reason },
      cause,
    });
  }
}
