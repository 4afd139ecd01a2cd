import { describe, expect, test } from "vitest";
import { makeOracleDevice } from "../../../test/support/gradient.ts";
import { makeNativeDevice, nativeIsMissing } from "../../../test/support/native.ts";
import { ConfigError } from "../../base/index.ts";
import type { QueueDevice } from "../device.ts";
import { pause } from "./pause.ts";

async function secondsOf(act: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await act();
  return (performance.now() - begin) / 1000;
}

const makers: readonly (readonly [string, boolean, () => QueueDevice])[] = [
  ["reference", false, makeOracleDevice],
  ["native", nativeIsMissing, () => makeNativeDevice(undefined, 1).device],
];

describe.each(makers)("pause on the %s backend", (_, isMissing, make) => {
  test.skipIf(isMissing)("takes its time in the queue, and none of JavaScript's", async () => {
    const device = make();
    let enqueuing = Number.POSITIVE_INFINITY;
    const whole = await secondsOf(async () => {
      enqueuing = await secondsOf(async () => {
        for (const seconds of [0.05, 0.05]) pause(device, seconds);
      });
      await device.drain();
    });
    // A timer of JavaScript may be a millisecond early.
    expect(whole).toBeGreaterThanOrEqual(0.098);
    expect(enqueuing).toBeLessThan(0.05);
    await device.dispose();
  });

  test.skipIf(isMissing)("lets other queues pause at the same time", async () => {
    const devices = Array.from({ length: 8 }, make);
    const seconds = await secondsOf(() =>
      Promise.all(
        devices.map((device) => {
          pause(device, 0.25);
          return device.drain();
        }),
      ),
    );
    expect(seconds).toBeLessThan(8 * 0.25);
    for (const device of devices) await device.dispose();
  });
});

test("a pause of no possible length is refused", () => {
  const device = makeOracleDevice();
  for (const seconds of [-1, Number.NaN, 61]) expect(() => pause(device, seconds)).toThrow(ConfigError);
});
