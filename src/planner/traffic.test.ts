import { describe, expect, test } from "vitest";
import { presetConfig } from "../model/index.ts";
import { namedCluster } from "./cluster.ts";
import { layerTraffic, stageHandover, tokenBytes } from "./traffic.ts";

const v3 = presetConfig("v3-671b");
const cluster = namedCluster("h800x2048");
/** The bound of the report: four nodes, none of them the token's own. */
const bound = { nodes: 4, remoteNodes: 4, devices: 8, hops: 7 };

describe("tokenBytes", () => {
  test("a token is 7,168 bytes and 56 scales in FP8, 14,336 bytes in BF16", () => {
    expect(tokenBytes(v3, "fp8")).toEqual({ dispatch: 7168 + 56 * 4, combine: 14_336 });
    expect(tokenBytes(v3, "bf16")).toEqual({ dispatch: 14_336, combine: 14_336 });
  });
});

describe("layerTraffic", () => {
  const { dispatch, combine } = layerTraffic(v3, cluster, bound, { tokens: 4096, precision: "fp8" });

  test("4,096 tokens on 4 nodes: 121 MB out in 2.4 ms, 235 MB back in 4.7 ms", () => {
    expect(dispatch.interNodeBytes / 1e6).toBeCloseTo(121, 0);
    expect(dispatch.seconds * 1e3).toBeCloseTo(2.4, 1);
    expect(combine.interNodeBytes / 1e6).toBeCloseTo(235, 0);
    expect(combine.seconds * 1e3).toBeCloseTo(4.7, 1);
  });

  test("up to 3.2 hops inside a node cost no time beside one copy between nodes", () => {
    const hidden = layerTraffic(
      v3,
      cluster,
      { ...bound, hops: 3.19 * 4 },
      { tokens: 4096, precision: "fp8" },
    );
    expect(hidden.dispatch.seconds).toBe(dispatch.seconds);
    const longer = layerTraffic(v3, cluster, { ...bound, hops: 3.3 * 4 }, { tokens: 4096, precision: "fp8" });
    expect(longer.dispatch.seconds).toBeGreaterThan(dispatch.seconds);
  });

  test("takes no time where nothing is sent", () => {
    const none = { nodes: 1, remoteNodes: 0, devices: 1, hops: 0 };
    expect(layerTraffic(v3, cluster, none, { tokens: 4096, precision: "fp8" }).combine.seconds).toBe(0);
  });
});

describe("stageHandover", () => {
  test("is the hidden state of a micro-batch in BF16, over the network that joins the stages", () => {
    expect(stageHandover(v3, cluster, 4096)).toBeCloseTo((4096 * 14_336) / 50e9 + 3.7e-6, 9);
    expect(stageHandover(v3, namedCluster("h800x8"), 4096)).toBeCloseTo((4096 * 14_336) / 160e9, 9);
  });
});
