import { describe, expect, test } from "vitest";
import { presetConfig } from "../model/index.ts";
import { routingSpread, sampleRouting, spreads } from "./routing.ts";

const v3 = presetConfig("v3-671b");
const sample = sampleRouting(v3);

describe("sampleRouting", () => {
  test("gives each token different experts of at most topkGroup groups", () => {
    for (const experts of sample) {
      expect(new Set(experts).size).toBe(8);
      expect(new Set([...experts].map((expert) => Math.floor(expert / 32))).size).toBeLessThanOrEqual(4);
    }
  });

  test("is the same in every run", () => {
    expect(sampleRouting(v3)).toEqual(sample);
  });

  test("takes any expert where there is one group", () => {
    const lite = presetConfig("v2-lite-16b");
    const used = new Set(sampleRouting(lite).flatMap((experts) => [...experts]));
    expect(used.size).toBe(64);
  });
});

describe("routingSpread", () => {
  test("V3's tokens visit 3.95 nodes and 7.49 devices of an EP 64 group on 8 nodes", () => {
    const spread = routingSpread(v3, sample, { ep: 64, devicesPerNode: 8 });
    expect(spread.nodes).toBeCloseTo(3.95, 1);
    expect(spread.devices).toBeCloseTo(7.49, 1);
    // One node of eight is the token's own.
    expect(spread.remoteNodes / spread.nodes).toBeCloseTo(7 / 8, 1);
  });

  test("one device exchanges nothing, one node nothing between nodes", () => {
    expect(routingSpread(v3, sample, { ep: 1, devicesPerNode: 8 })).toEqual({
      nodes: 1,
      remoteNodes: 0,
      devices: 1,
      hops: 0,
    });
    expect(routingSpread(v3, sample, { ep: 8, devicesPerNode: 8 }).remoteNodes).toBe(0);
  });

  test("nodes of one device have no hops inside", () => {
    expect(routingSpread(v3, sample, { ep: 4, devicesPerNode: 1 }).hops).toBe(0);
  });

  test("more devices spread a token further, up to one for each expert", () => {
    const devices = [1, 2, 4, 8, 16, 32, 64, 128, 256].map(
      (ep) => routingSpread(v3, sample, { ep, devicesPerNode: 8 }).devices,
    );
    expect(devices.toSorted((a, b) => a - b)).toEqual(devices);
    expect(devices.at(-1)).toBe(8);
  });
});

describe("spreads", () => {
  test("counts what routingSpread counts, once for each ep", () => {
    const spreadOf = spreads(v3, { devicesPerNode: 8 });
    expect(spreadOf(32)).toEqual(routingSpread(v3, sample, { ep: 32, devicesPerNode: 8 }));
    expect(spreadOf(32)).toBe(spreadOf(32));
  });
});
