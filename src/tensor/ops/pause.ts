/** Lets a queue wait for a time, in place of kernels that would take as long: pipelines of more ranks than cores. */
import { ConfigError } from "../../base/index.ts";
import { defineSpecial, type Kernel } from "../kernel.ts";
import type { Device } from "../tensor.ts";

export const pauseKernel: Kernel = defineSpecial("pause", "pause", {}, ["microseconds"]);

const LONGEST_SECONDS = 60;

/** The queue sleeps and no core is busy; never for less than `seconds`, rounded to a microsecond. */
export function pause(device: Device, seconds: number): void {
  if (!(seconds >= 0 && seconds <= LONGEST_SECONDS)) {
    throw new ConfigError(`a queue is to pause for ${seconds} s`, {
      why: `a pause stands for one chunk: 0 to ${LONGEST_SECONDS} seconds`,
      fix: "give the chunks' times in seconds",
      fields: { seconds },
    });
  }
  device.run(pauseKernel, {}, { microseconds: Math.round(seconds * 1e6) });
}
