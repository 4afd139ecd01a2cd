import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { presetConfig } from "../model/index.ts";
import { namedCluster, numDevices } from "./cluster.ts";
import { isPublishedRun, publishedLayout, publishedStep, publishedV3 } from "./published.ts";
import { type TrainingRun, throughput } from "./throughput.ts";

const v3 = presetConfig("v3-671b");
const seconds = fc.double({ min: 0.01, max: 1000, noNaN: true });
const runs: fc.Arbitrary<TrainingRun> = fc
  .record({
    nodes: fc.integer({ min: 1, max: 512 }),
    batchRows: fc.integer({ min: 1, max: 20_000 }),
    rowLength: fc.integer({ min: 1, max: 8192 }),
    tokens: fc.double({ min: 1e6, max: 1e14, noNaN: true }),
    price: fc.double({ min: 0.1, max: 20, noNaN: true }),
    model: fc.constantFrom("v3-671b", "v2-lite-16b", "nano"),
  })
  .map(({ nodes, batchRows, rowLength, tokens, price, model }) => ({
    config: presetConfig(model),
    cluster: { ...namedCluster(`h800x${8 * nodes}`), pricePerDeviceHour: price },
    size: { batchRows, rowLength, precision: "fp8" },
    tokens,
  }));

function same(found: number, expected: number): void {
  expect(Math.abs(found / expected - 1)).toBeLessThan(1e-12);
}

describe("throughput", () => {
  test("tokens a day times the seconds of a step are a day's seconds times the step's tokens", () => {
    fc.assert(
      fc.property(runs, seconds, (run, step) => {
        const { batchRows, rowLength } = run.size;
        same(throughput(run, step).tokensPerDay * step, 86_400 * batchRows * rowLength);
      }),
    );
  });

  test("devices for as many days as the tokens take are the device hours", () => {
    fc.assert(
      fc.property(runs, seconds, (run, step) => {
        const { tokensPerDay, deviceHours } = throughput(run, step);
        same(deviceHours, 24 * numDevices(run.cluster) * (run.tokens / tokensPerDay));
      }),
    );
  });

  test("the price is in proportion to tokens, to the step's seconds, and to the price of an hour", () => {
    fc.assert(
      fc.property(runs, seconds, fc.integer({ min: 2, max: 9 }), (run, step, factor) => {
        const { price } = throughput(run, step);
        const dearer = { ...run.cluster, pricePerDeviceHour: factor * run.cluster.pricePerDeviceHour };
        same(throughput({ ...run, tokens: factor * run.tokens }, step).price, factor * price);
        same(throughput(run, factor * step).price, factor * price);
        same(throughput({ ...run, cluster: dearer }, step).price, factor * price);
      }),
    );
  });

  test("the length of the run changes its price and not its speed", () => {
    fc.assert(
      fc.property(runs, seconds, (run, step) => {
        const { deviceHours: _, price: __, ...speed } = throughput(run, step);
        expect(throughput({ ...run, tokens: 3 * run.tokens }, step)).toMatchObject(speed);
      }),
    );
  });

  test("shares of the peak are FLOP/s over BF16 peak, and attention over whole rows counts more", () => {
    fc.assert(
      fc.property(runs, seconds, (run, step) => {
        const found = throughput(run, step);
        same(found.causalMfu * run.cluster.device.bf16Flops, found.causalFlops);
        same(found.nonCausalMfu * run.cluster.device.bf16Flops, found.nonCausalFlops);
        expect(found.nonCausalFlops).toBeGreaterThan(found.causalFlops);
        same(throughput(run, 2 * step).causalFlops, found.causalFlops / 2);
      }),
    );
  });
});

describe("isPublishedRun", () => {
  const cluster = namedCluster("h800x2048");

  test("the published figures belong together: hours, tokens a day, FLOP/s of the non-causal count", () => {
    const { tokens, tokensPerDay, deviceHours, causalFlops, nonCausalFlops, ...rest } = publishedV3;
    expect((2048 * 24 * tokens) / tokensPerDay / deviceHours).toBeCloseTo(1, 2);
    expect(causalFlops / rest.causalMfu / cluster.device.bf16Flops).toBeCloseTo(1, 2);
    expect(nonCausalFlops / rest.nonCausalMfu / cluster.device.bf16Flops).toBeCloseTo(1, 2);
  });

  test.each(["pp", "dp", "ep", "microBatchRows"] as const)("another %s is another run", (key) => {
    const layout = { ...publishedLayout, [key]: 2 * publishedLayout[key] };
    expect(isPublishedRun("v3-671b", cluster, layout, publishedStep, v3)).toBe(false);
  });

  test("another schedule, precision, batch or depth is another run", () => {
    const ofSize = (change: object): boolean =>
      isPublishedRun("v3-671b", cluster, publishedLayout, { ...publishedStep, ...change }, v3);
    expect([ofSize({}), ofSize({ precision: "bf16" }), ofSize({ batchRows: 7680 })]).toEqual([
      true,
      false,
      false,
    ]);
    const folded = { ...publishedLayout, schedule: "dualpipev" } as const;
    expect(isPublishedRun("v3-671b", cluster, folded, publishedStep, v3)).toBe(false);
    const shallow = { ...v3, numHiddenLayers: 60 };
    expect(isPublishedRun("v3-671b", cluster, publishedLayout, publishedStep, shallow)).toBe(false);
  });
});
