/** What a hub is asked to be: how long its ranks wait, and which link it imitates. */
import { ConfigError } from "../../base/index.ts";
import type { HubLink } from "./backend.ts";

/** Seconds; the kernels' hub has the same bound (native/kernels/src/message/link.rs). */
const LONGEST_LATENCY = 4 * 3600;

/** @throws {ConfigError} if it is no time that a rank can wait */
export function checkedTimeout(timeoutSeconds: number): number {
  if (Number.isFinite(timeoutSeconds) && timeoutSeconds > 0) return timeoutSeconds;
  throw new ConfigError(`ranks are to wait ${timeoutSeconds} seconds for a message`, {
    why: "a rank waits a number of seconds above 0 before it ends the job",
    fix: "leave timeoutSeconds out for 600",
    fields: { timeoutSeconds },
  });
}

/** @throws {ConfigError} if no message could travel so */
export function checkedLink(link: HubLink | undefined): HubLink | undefined {
  if (link === undefined) return undefined;
  const { latencySeconds, bytesPerSecond } = link;
  // Written so that NaN is refused too.
  const isLatency = latencySeconds >= 0 && latencySeconds <= LONGEST_LATENCY;
  if (isLatency && bytesPerSecond >= 1) return link;
  throw new ConfigError(
    `a link is to take ${latencySeconds} seconds and to carry ${bytesPerSecond} bytes a second`,
    {
      why: `a message travels for 0 to ${LONGEST_LATENCY} seconds, at one byte a second or more`,
      fix: "give latencySeconds in seconds and bytesPerSecond in bytes: 10e-6 and 10e9 for a fast network",
      fields: { latencySeconds, bytesPerSecond },
    },
  );
}
