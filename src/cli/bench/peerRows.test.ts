import { describe, expect, test } from "vitest";
import { BackendError } from "../../base/index.ts";
import { failedRow, oursRow, type PeerSteps, peerRow } from "./peerRows.ts";
import { rowText, TRACE_HEADER, timing } from "./row.ts";

const settings = { minke: "0.1.0", kernels: "amx", threads: 2, tokensPerStep: 2000, flopsPerStep: 1e9 };
const peer = (
  name: string,
  precision: "bf16" | "f32",
  seconds: readonly number[],
  bf16: number,
): PeerSteps => ({
  name,
  precision,
  seconds,
  peakRssBytes: 2e9,
  settings: { torch: "2.15.0", threads: 2, setting: "experts grouped" },
  beside: {
    bf16: { precision: "bf16", seconds: [bf16, 0.7, 0.6], peak: 8e9, peakRssBytes: 5e8, settings },
    f32: { precision: "f32", seconds: [1, 1.2, 1.1], peak: 2e9, peakRssBytes: 6e8, settings },
  },
});
const slow = peer("PyTorch f32 eager", "f32", [2, 2.4, 2.2], 0.4);
const fast = peer("PyTorch bf16 autocast compiled", "bf16", [1, 1.5, 1.2], 0.5);

describe("timing", () => {
  test("best and median of odd and even numbers, in any order", () => {
    expect(timing([3, 1, 2])).toEqual({ best: 1, median: 2 });
    expect(timing([4, 1, 3, 2])).toEqual({ best: 1, median: 2.5 });
  });
});

describe("peerRow", () => {
  test("has the peer's speed, its share of the peak of its own precision, and both our ratios in the same rounds", () => {
    expect(peerRow("nano", slow)).toMatchObject({
      bench: "peers",
      name: "nano: PyTorch f32 eager",
      who: "PyTorch",
      version: "2.15.0",
      threads: 2,
      tokensPerSecond: 1000,
      gflops: 0.5,
      peakGflops: 2,
      share: 0.25,
      peakRssBytes: 2e9,
      minkeBf16Ratio: 5,
      minkeF32Ratio: 2,
      minkeBf16MedianRatio: 2.2 / 0.6,
    });
  });

  test("of a product there are no tokens", () => {
    const { tokensPerStep: _, ...product } = settings;
    const { bf16, f32 } = fast.beside;
    const row = peerRow("gemm", { ...fast, beside: { bf16: { ...bf16, settings: product }, f32 } });
    expect(row).toMatchObject({ bench: "gemm", tokensPerSecond: null, gflops: 1 });
  });
});

describe("oursRow", () => {
  test("is held against the fastest peer of all, and names the fastest of its own precision", () => {
    expect(oursRow("nano", "f32", [slow, fast], null)).toMatchObject({
      name: "nano: Minke f32",
      tokensPerSecond: 2000,
      share: 0.5,
      fastestPeer: "PyTorch bf16 autocast compiled",
      ratio: 1,
      fastestSamePrecision: "PyTorch f32 eager",
      samePrecisionRatio: 2,
      fastestPeerRssBytes: 2e9,
    });
  });

  test("is of the fastest peer's rounds, however fast ours was beside another: both had as many tries", () => {
    const row = oursRow("nano", "bf16", [slow, fast], null);
    expect(row).toMatchObject({ seconds: 0.5, rounds: fast.seconds.length, ratio: 2 });
    expect(row["ratio"]).toBe(peerRow("nano", fast)["minkeBf16Ratio"]);
  });

  test("stands alone where every peer failed", () => {
    expect(oursRow("nano", "bf16", [], fast.beside)).toMatchObject({
      tokensPerSecond: 4000,
      fastestPeer: null,
      ratio: null,
    });
  });
});

describe("failedRow", () => {
  test("keeps what, why and fix", () => {
    const error = new BackendError("it ended", { why: "no torch", fix: "install it" });
    expect(failedRow("mini", "PyTorch f32 eager", error)).toEqual({
      bench: "peers",
      name: "mini: PyTorch f32 eager",
      preset: "mini",
      failed: "it ended",
      why: "no torch",
      fix: "install it",
    });
  });
});

describe("rowText", () => {
  test("writes units, leaves out what is not known, and sets the profiler's rows in columns", () => {
    const text = rowText({
      bench: "step",
      name: "x",
      share: 0.5,
      peakRssBytes: 2 ** 29,
      gflops: 1234.5,
      ratio: null,
    });
    expect(text).toBe(`${"x".padEnd(40)} share 50.0%  peakRssBytes 512 MiB  gflops 1235`);
    const figures = { milliseconds: 1.5, stepShare: 0.25, calls: 3, gflops: null, peakShare: null };
    const line = rowText({ bench: "trace", name: "fill", ...figures, gigabytesPerSecond: 9.96 });
    expect(line).toBe(
      "fill                            1.50     25.0%         3         -         -      10.0",
    );
    expect(line).toHaveLength(TRACE_HEADER.length);
  });
});
