import { expect, test } from "vitest";
import { nativeIsMissing } from "../../test/support/native.ts";
import { collectGarbage } from "./collectGarbage.ts";

const MB = 1e6;
const header = process.report.getReport() as { header?: { glibcVersionRuntime?: string } };
const isGlibc = header.header?.glibcVersionRuntime !== undefined;

test.skipIf(nativeIsMissing || !isGlibc)("gives back memory that lies between buffers still in use", () => {
  const pinned: Uint8Array[] = [];
  // Too small for pages of their own: malloc cuts them from its heap, and one in fifty keeps the end in use.
  for (let i = 0; i < 2000; i++) {
    const bytes = new Uint8Array(60_000).fill(1);
    if (i % 50 === 49) pinned.push(bytes);
  }
  const before = process.memoryUsage.rss();
  collectGarbage();
  expect((before - process.memoryUsage.rss()) / MB).toBeGreaterThan(40);
  expect(pinned.every((bytes) => bytes[0] === 1)).toBe(true);
});
