/** The constants of the uncalibrated model, derived again from what was published. */
import { describe, expect, test } from "vitest";
import { assumptionsOf, deepGemmTable, flashAttentionTflops, type PublishedProduct } from "./assumptions.ts";
import { hopperEfficiency, namedCluster } from "./cluster.ts";

const FP8_PEAK = 1979e12;
const BF16_PEAK = 989e12;
const BANDWIDTH = 3.35e12;

function flopsOf({ groups, rows, out, in: inner }: PublishedProduct): number {
  return 2 * groups * rows * out * inner;
}

/** FP8 in, BF16 out. */
function byteSeconds({ groups, rows, out, in: inner }: PublishedProduct): number {
  return (groups * (rows * inner + out * inner + 2 * rows * out)) / BANDWIDTH;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

describe("hopperEfficiency", () => {
  test("products: the kernels before DeepGEMM reach 60 % of peak on V3's shapes once their bytes are paid", () => {
    const shares = deepGemmTable.map((product) => {
      const seconds = (flopsOf(product) / (product.tflops * 1e12)) * product.speedup;
      return flopsOf(product) / (seconds - byteSeconds(product)) / FP8_PEAK;
    });
    expect(mean(shares)).toBeCloseTo(hopperEfficiency.matmul, 2);
  });

  test("attention: forward as FlashAttention 3 has it, backward by FlashAttention 2's ratio", () => {
    const { forward3, forward2, both2 } = flashAttentionTflops;
    expect(forward3 / 989).toBeCloseTo(hopperEfficiency.attentionForward, 3);
    // Forward has 2 products, backward 5: both together 3.5 times the forward's FLOPs.
    const backward2 = 2.5 / (3.5 / both2 - 1 / forward2);
    const backward3 = forward3 * (backward2 / forward2);
    expect((backward3 * 1e12) / BF16_PEAK).toBeCloseTo(hopperEfficiency.attentionBackward, 2);
  });

  test("memory: DeepGEMM's thinnest products read 2,668 of 3,350 GB/s", () => {
    expect(2668 / 3350).toBeCloseTo(hopperEfficiency.memory, 2);
  });
});

describe("assumptionsOf", () => {
  test("names every efficiency with its value and source", () => {
    const listed = assumptionsOf(namedCluster("h800x16"));
    for (const share of Object.values(hopperEfficiency)) {
      expect(listed.map(({ value }) => value)).toContain(`${(share * 100).toFixed(1)} %`);
    }
    for (const { source } of listed) expect(source).not.toBe("");
    expect(listed.map(({ value }) => value)).toEqual(expect.arrayContaining(["50 GB/s", "160 GB/s"]));
    expect(new Set(listed.map(({ name }) => name)).size).toBe(listed.length);
  });

  test("of a user's cluster says what is taken over from other devices", () => {
    const mine = { ...namedCluster("h800x16"), origin: "file" as const };
    const found = assumptionsOf({ ...mine, efficiency: { ...mine.efficiency, matmul: 0.3 } });
    const [products, attention] = ["products", "attention forward"].map((start) =>
      found.find(({ name }) => name.startsWith(start)),
    );
    expect(products).toMatchObject({ value: "30.0 %", source: "the cluster's file" });
    expect(attention!.source).toMatch(/^taken over from Hopper, not of this device/);
  });
});
