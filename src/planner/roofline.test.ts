import { describe, expect, test } from "vitest";
import { deepGemmTable } from "./assumptions.ts";
import { namedCluster } from "./cluster.ts";
import { workSeconds } from "./roofline.ts";
import { noWork } from "./work.ts";

const cluster = namedCluster("h800x8");

describe("workSeconds", () => {
  test.each(deepGemmTable)(
    "$groups x [$rows, $in] x [$out, $in] takes within 20 % of what it took before DeepGEMM",
    (product) => {
      const { groups, rows, out, in: inner, tflops, speedup } = product;
      const flops = 2 * groups * rows * out * inner;
      const productBytes = groups * (rows * inner + out * inner + 2 * rows * out);
      const measured = (flops / (tflops * 1e12)) * speedup;
      const seconds = workSeconds({ ...noWork, fp8Flops: flops, productBytes }, cluster);
      expect(seconds / measured).toBeGreaterThan(0.8);
      expect(seconds / measured).toBeLessThan(1.2);
    },
  );

  test("fewer multiprocessors slow arithmetic down and bytes not at all", () => {
    const arithmetic = {
      ...noWork,
      bf16Flops: 1e12,
      attentionForwardFlops: 1e12,
      attentionBackwardFlops: 1e12,
    };
    const bytes = { ...noWork, productBytes: 1e9, passBytes: 1e9 };
    expect(workSeconds(arithmetic, cluster, 0.5)).toBeCloseTo(2 * workSeconds(arithmetic, cluster), 12);
    expect(workSeconds(bytes, cluster, 0.5)).toBe(workSeconds(bytes, cluster));
  });

  test("a device without FP8 multiplies at its BF16 peak", () => {
    const old = { ...cluster, device: { ...cluster.device, fp8Flops: null } };
    expect(workSeconds({ ...noWork, fp8Flops: 1e12 }, old)).toBe(
      workSeconds({ ...noWork, bf16Flops: 1e12 }, old),
    );
  });
});
