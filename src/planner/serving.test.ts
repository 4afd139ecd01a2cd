import { describe, expect, test } from "vitest";
import { presetConfig } from "../model/index.ts";
import { namedCluster } from "./cluster.ts";
import {
  boundBandwidths,
  decodeReadSeconds,
  outputTokenBound,
  planServing,
  publishedBound,
  servingUnits,
} from "./serving.ts";

const v3 = presetConfig("v3-671b");
const cluster = namedCluster("h800x2048");
const published = { ...v3, hiddenSize: publishedBound.hiddenSize };

describe("outputTokenBound", () => {
  test("400 Gb/s: 120.96 us an exchange, 241.92 us a layer, 14.76 ms a token, 67 tokens/s", () => {
    const bound = outputTokenBound(published, { tokens: 32, bandwidth: boundBandwidths[0]!.bandwidth });
    expect(bound.exchangeSeconds * 1e6).toBeCloseTo(120.96, 6);
    expect(bound.layerSeconds * 1e6).toBeCloseTo(241.92, 6);
    expect(bound.secondsPerToken * 1e3).toBeCloseTo(14.76, 2);
    expect(Math.floor(bound.tokensPerSecond)).toBe(67);
  });

  test("900 GB/s: 6.72 us an exchange, 0.82 ms a token, about 1200 tokens/s", () => {
    const bound = outputTokenBound(published, { tokens: 32, bandwidth: boundBandwidths[1]!.bandwidth });
    expect(bound.exchangeSeconds * 1e6).toBeCloseTo(6.72, 6);
    expect(bound.secondsPerToken * 1e3).toBeCloseTo(0.82, 2);
    expect(bound.tokensPerSecond).toBeGreaterThan(1190);
    expect(bound.tokensPerSecond).toBeLessThan(1230);
  });

  test("the hidden size that V3 really has makes it 2.4 % longer", () => {
    const load = { tokens: 32, bandwidth: 50e9 };
    const ratio =
      outputTokenBound(v3, load).secondsPerToken / outputTokenBound(published, load).secondsPerToken;
    expect(ratio).toBeCloseTo(7168 / 7000, 9);
  });
});

describe("planServing", () => {
  const plans = servingUnits.map((unit) => planServing(v3, cluster, unit));

  test("devices have 8 + 1 experts for prefill, 1 and 2 for decode", () => {
    expect(plans.map(({ expertsPerDevice }) => expertsPerDevice)).toEqual([9, 1, 9, 2]);
    expect(plans.every(({ isEven }) => isEven)).toBe(true);
  });

  test("a token's compressed cache is 576 BF16 numbers in 61 layers: 70,272 bytes", () => {
    expect(plans[0]!.cacheBytesPerToken).toBe(70_272);
  });

  test("all units fit, and a device with fewer experts has room for more cache", () => {
    expect(plans.every(({ fits }) => fits)).toBe(true);
    const free = 0.9 * cluster.device.memoryBytes - plans[0]!.weightBytes;
    expect(plans[0]!.cacheTokensPerDevice).toBe(Math.floor(free / 70_272));
    expect(plans[1]!.cacheTokensPerDevice).toBeGreaterThan(plans[0]!.cacheTokensPerDevice);
  });

  test("weights are FP8: attention, shared and dense parts everywhere, nine experts in 58 layers", () => {
    const linear = 61 * 187_107_328 + 3 * 396_361_728 + 58 * 10 * 44_040_192;
    const other = 2 * (2 * 926_679_040 + 58 * 1_835_264);
    expect(plans[0]!.weightBytes).toBeCloseTo(linear * (1 + 4 / 16_384) + other, 0);
  });

  test("a small device does not fit, and has room for nothing", () => {
    const small = { ...cluster, device: { ...cluster.device, memoryBytes: 16 * 2 ** 30 } };
    expect(planServing(v3, small, servingUnits[0]!)).toMatchObject({ fits: false, cacheTokensPerDevice: 0 });
  });

  test("experts that do not spread evenly are told", () => {
    const lite = presetConfig("v2-lite-16b");
    expect(planServing(lite, cluster, servingUnits[3]!).isEven).toBe(false);
  });
});

describe("decodeReadSeconds", () => {
  test("is weights and caches over the memory's bandwidth", () => {
    const plan = planServing(v3, cluster, servingUnits[3]!);
    const seconds = decodeReadSeconds(plan, cluster.device, { requests: 32, contextTokens: 5000 });
    expect(seconds).toBeCloseTo((plan.weightBytes + 32 * 5000 * 70_272) / 3.35e12, 12);
  });
});
