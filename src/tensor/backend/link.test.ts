import { describe, expect, test } from "vitest";
import { nativeIsMissing } from "../../../test/support/native.ts";
import { ConfigError } from "../../base/index.ts";
import type { HubLink } from "./backend.ts";
import { checkedLink, checkedTimeout } from "./link.ts";
import { NativeHub } from "./native/hub.ts";
import { ReferenceHub } from "./reference/hub.ts";

const good = { latencySeconds: 14_400, bytesPerSecond: 1 };
const wrong = [
  ...[-1, Number.NaN, Number.POSITIVE_INFINITY, 14_401].map((latencySeconds) => ({
    ...good,
    latencySeconds,
  })),
  ...[0, 0.5, -3, Number.NaN].map((bytesPerSecond) => ({ ...good, bytesPerSecond })),
];

test("a link of what no message can travel by is refused with both numbers", () => {
  expect(checkedLink(good)).toBe(good);
  expect(checkedLink(undefined)).toBeUndefined();
  for (const link of wrong) {
    expect(() => checkedLink(link)).toThrow(ConfigError);
    expect(() => checkedLink(link)).toThrow(
      `a link is to take ${link.latencySeconds} seconds and to carry ${link.bytesPerSecond} bytes a second`,
    );
  }
});

test("a time-out is a number of seconds above 0", () => {
  expect(checkedTimeout(0.5)).toBe(0.5);
  for (const seconds of [0, -1, Number.NaN, Number.POSITIVE_INFINITY])
    expect(() => checkedTimeout(seconds)).toThrow(`wait ${seconds} seconds`);
});

const kinds: readonly [string, (timeoutSeconds: number, link?: HubLink) => unknown, boolean][] = [
  ["reference", (seconds, link) => new ReferenceHub(2, seconds, link), false],
  ["native", (seconds, link) => new NativeHub(2, 1, seconds, link), nativeIsMissing],
];

describe.each(kinds)("a %s hub", (_, make, isMissing) => {
  test.skipIf(isMissing)("is not made with impossible times", () => {
    for (const link of wrong) expect(() => make(10, link)).toThrow(ConfigError);
    expect(() => make(Number.NaN)).toThrow(ConfigError);
  });
});
