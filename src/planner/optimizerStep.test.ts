import { describe, expect, test } from "vitest";
import { namedCluster } from "./cluster.ts";
import { optimizerSeconds } from "./optimizerStep.ts";
import { publishedLayout } from "./published.ts";

const dense = { replicatedLinear: 1e9, replicatedOther: 0, experts: 0 };
const experts = { replicatedLinear: 0, replicatedOther: 0, experts: 1e9 };
const fp8 = { precision: "fp8" } as const;

describe("optimizerSeconds", () => {
  test("inside the node first: each device sends an eighth of its gradients between nodes", () => {
    const cluster = namedCluster("h800x2048");
    const replicas = 256;
    // f32 gradients there, FP8 weights back; 32 nodes; then the shard's 20 bytes a parameter.
    const inside = (5e9 * (7 / 8)) / 160e9;
    const between = ((5e9 / 8) * (31 / 32)) / 50e9;
    const update = (20 * (1e9 / replicas)) / (3.35e12 * 0.8);
    expect(optimizerSeconds(dense, cluster, publishedLayout, fp8)).toBeCloseTo(inside + between + update, 9);
  });

  test("copies of an expert lie in different nodes", () => {
    const cluster = namedCluster("h800x2048");
    const between = (5e9 * (3 / 4)) / 50e9;
    const update = (20 * (1e9 / 4)) / (3.35e12 * 0.8);
    expect(optimizerSeconds(experts, cluster, publishedLayout, fp8)).toBeCloseTo(between + update, 9);
  });

  test("one device updates its weights and sends nothing", () => {
    const cluster = namedCluster("h800x1");
    const layout = { pp: 1, dp: 1, ep: 1, schedule: "1f1b", microBatchRows: 1 } as const;
    expect(optimizerSeconds(dense, cluster, layout, fp8)).toBeCloseTo(20e9 / (3.35e12 * 0.8), 9);
  });

  test("a copy without a twin is not sent anywhere", () => {
    const cluster = namedCluster("h800x64");
    const layout = { pp: 1, dp: 64, ep: 64, schedule: "1f1b", microBatchRows: 1 } as const;
    expect(optimizerSeconds(experts, cluster, layout, fp8)).toBeCloseTo(20e9 / (3.35e12 * 0.8), 9);
  });

  test("weights come back in BF16 where they are BF16", () => {
    const cluster = namedCluster("h800x2048");
    const bf16 = optimizerSeconds(dense, cluster, publishedLayout, { precision: "bf16" });
    expect(bf16).toBeGreaterThan(optimizerSeconds(dense, cluster, publishedLayout, fp8));
  });
});
