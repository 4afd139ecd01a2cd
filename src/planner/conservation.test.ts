/** What holds for every plan, whatever the layout and the cluster: nothing is lost, more is never slower. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BaseError, ConfigError, UsageError } from "../base/index.ts";
import { countParameters, presetConfig, trainingFlopsPerToken } from "../model/index.ts";
import { type Cluster, namedCluster, numDevices } from "./cluster.ts";
import { parseCluster } from "./clusterFile.ts";
import { layoutProblem, type StepSize, schedules, type TrainingLayout } from "./layout.ts";
import { memoryPerRank, type RankMemory } from "./memory.ts";
import { optimizerSeconds } from "./optimizerStep.ts";
import { pipelineOf } from "./pipelineTimer.ts";
import { publishedStep } from "./published.ts";
import { spreads } from "./routing.ts";
import { outputTokenBound, planServing } from "./serving.ts";
import { splitStages } from "./stages.ts";
import { layerTraffic, stageHandover } from "./traffic.ts";
import { planTraining, type TrainingPlan } from "./training.ts";

const v3 = presetConfig("v3-671b");
const spreadOf = spreads(v3, { devicesPerNode: 8 });
const power = (max: number): fc.Arbitrary<number> => fc.integer({ min: 0, max }).map((n) => 2 ** n);
const layouts: fc.Arbitrary<TrainingLayout> = fc
  .record({
    pp: power(4),
    ep: power(6),
    copies: power(3),
    schedule: fc.constantFrom(...schedules),
    microBatchRows: fc.constantFrom(1, 2),
  })
  .map(({ pp, ep, copies, schedule, microBatchRows }) => ({
    ...{ pp, ep, dp: ep * copies, microBatchRows },
    schedule: pp === 1 && schedule === "dualpipe" ? "dualpipev" : schedule,
  }));
const precisions = fc.constantFrom("fp8", "bf16");
const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

function memoryOf(layout: TrainingLayout, change: Partial<StepSize> = {}): readonly RankMemory[] {
  const isFolded = layout.schedule.startsWith("dualpipe");
  const plan = pipelineOf(layout, 2 * layout.pp);
  return memoryPerRank({
    ...{ config: v3, layout, size: { ...publishedStep, ...change }, plan, spread: spreadOf(layout.ep) },
    stages: splitStages(v3, plan.stages, { dense: 1, moe: 1.3, tail: 2.6 }, isFolded),
  });
}

describe("memory", () => {
  test("twice the data-parallel ranks halve masters and moments and touch nothing else", () => {
    fc.assert(
      fc.property(layouts, precisions, (layout, precision) => {
        const wide = memoryOf({ ...layout, dp: 2 * layout.dp }, { precision });
        for (const [rank, once] of memoryOf(layout, { precision }).entries()) {
          const { masters, moments, total, ...rest } = wide[rank]!;
          expect([masters, moments]).toEqual([once.masters / 2, once.moments / 2]);
          expect(rest).toEqual({ ...once, masters: undefined, moments: undefined, total: undefined });
          expect(total).toBeLessThan(once.total);
        }
      }),
      { numRuns: 30 },
    );
  });

  test("all shards together are the model with MTP, one embedding more where its two readers are apart", () => {
    const { main, mtpModule, embedding } = countParameters(v3);
    fc.assert(
      fc.property(layouts, fc.constantFrom("1f1b", "zb"), (any, schedule) => {
        const layout = { ...any, schedule };
        const sharded = (sum(memoryOf(layout).map(({ masters }) => masters)) / 4) * layout.dp;
        const whole = main + v3.numNextnPredictLayers * mtpModule + (layout.pp > 1 ? embedding : 0);
        expect(sharded / whole).toBeCloseTo(1, 12);
      }),
      { numRuns: 30 },
    );
  });

  test("longer rows and BF16 need more on every rank; parameters do not depend on the rows", () => {
    fc.assert(
      fc.property(layouts, (layout) => {
        const [short, long, wide] = [{}, { rowLength: 8192 }, { precision: "bf16" as const }].map((change) =>
          memoryOf(layout, change),
        );
        for (const [rank, one] of short!.entries()) {
          expect(long![rank]!.activations).toBeCloseTo(2 * one.activations, 0);
          expect(long![rank]!.workspace).toBe(2 * one.workspace);
          expect(long![rank]!.gradients).toBe(one.gradients);
          expect(wide![rank]!.total).toBeGreaterThan(one.total);
        }
      }),
      { numRuns: 20 },
    );
  });
});

describe("traffic", () => {
  const inputs = fc.record({ ep: power(6), tokens: fc.integer({ min: 1, max: 1e5 }), precision: precisions });
  const cluster = namedCluster("h800x2048");

  test("bytes are in proportion to tokens, and each further token takes equally long", () => {
    fc.assert(
      fc.property(inputs, fc.integer({ min: 2, max: 9 }), ({ ep, tokens, precision }, factor) => {
        const of = (times: number) =>
          layerTraffic(v3, cluster, spreadOf(ep), { tokens: times * tokens, precision });
        for (const way of ["dispatch", "combine"] as const) {
          const [once, twice, many] = [of(1)[way], of(2)[way], of(factor)[way]];
          expect(many.interNodeBytes).toBeCloseTo(factor * once.interNodeBytes, 0);
          expect(many.intraNodeBytes).toBeCloseTo(factor * once.intraNodeBytes, 0);
          const further = (factor - 1) * (twice.seconds - once.seconds);
          expect(many.seconds - once.seconds).toBeCloseTo(further, 12);
        }
      }),
    );
  });

  test("more bandwidth of either network never slows an exchange, a handover or the optimizer's step", () => {
    const keys = fc.constantFrom("interNodeBandwidth", "intraNodeBandwidth");
    const gain = fc.double({ min: 1, max: 20, noNaN: true });
    fc.assert(
      fc.property(inputs, layouts, keys, gain, (size, layout, key, factor) => {
        const faster: Cluster = { ...cluster, [key]: factor * cluster[key] };
        const parameters = { replicatedLinear: 1e9, replicatedOther: 1e8, experts: 5e9 };
        const [slow, fast] = [cluster, faster].map((one) => {
          const { dispatch, combine } = layerTraffic(v3, one, spreadOf(size.ep), size);
          const update = optimizerSeconds(parameters, one, layout, size);
          return [dispatch.seconds, combine.seconds, stageHandover(v3, one, size.tokens), update];
        });
        for (const [i, seconds] of fast!.entries()) expect(seconds).toBeLessThanOrEqual(slow![i]!);
      }),
    );
  });
});

describe("a step", () => {
  function planOf(layout: TrainingLayout, change: Partial<Cluster> = {}): TrainingPlan {
    const cluster = { ...namedCluster("h800x8"), chunkTimes: null, devicesPerNode: 8, ...change };
    const nodes = (layout.pp * layout.dp) / 8;
    const size = { ...publishedStep, batchRows: 4 * layout.pp * layout.dp * layout.microBatchRows };
    return planTraining({ config: v3, cluster: { ...cluster, nodes }, layout, size, tokens: 1e12, spreadOf });
  }
  const whole = layouts.filter(({ pp, dp }) => (pp * dp) % 8 === 0);

  test("takes no less than its FLOPs at every device's highest peak, and than any rank's chunks", () => {
    fc.assert(
      fc.property(whole, (layout) => {
        const { times, simulation, size } = planOf(layout);
        const [{ stepSeconds, pipelineSeconds, optimizerSeconds: update } = times[0]!] = times;
        const tokens = size.batchRows * size.rowLength;
        const flops = tokens * trainingFlopsPerToken(v3, size.rowLength).total;
        expect(stepSeconds).toBeGreaterThan(flops / (layout.pp * layout.dp) / 1979e12);
        expect(stepSeconds).toBe(pipelineSeconds + update);
        const busy = simulation.spans.map((own) => sum(own.map(({ start, end }) => end - start)));
        expect(Math.max(...busy)).toBeLessThanOrEqual(pipelineSeconds * (1 + 1e-9));
      }),
      { numRuns: 25 },
    );
  });

  test("is never slower on faster networks, where the stages stay as they are", () => {
    const gain = fc.double({ min: 0.05, max: 20, noNaN: true });
    fc.assert(
      fc.property(whole, gain, gain, (layout, a, b) => {
        const [low, high] = [Math.min(a, b), Math.max(a, b)];
        const [slow, fast] = [low, high].map((factor) =>
          planOf(layout, { interNodeBandwidth: factor * 50e9, intraNodeBandwidth: factor * 160e9 }),
        );
        fc.pre(JSON.stringify(slow!.roofline.stages) === JSON.stringify(fast!.roofline.stages));
        const [before, after] = [slow!.times[0]!.stepSeconds, fast!.times[0]!.stepSeconds];
        expect(after).toBeLessThanOrEqual(before * (1 + 1e-9));
      }),
      { numRuns: 25 },
    );
  });
});

describe("serving", () => {
  test("more devices hold fewer weights each and more cache; more memory holds more cache", () => {
    const unit = { name: "any", phase: "decode", nodes: 1, redundantExperts: 0 } as const;
    fc.assert(
      fc.property(power(7), fc.double({ min: 1, max: 8, noNaN: true }), (devices, factor) => {
        const cluster = namedCluster("h800x8");
        const memoryBytes = factor * cluster.device.memoryBytes;
        const large = { ...cluster, device: { ...cluster.device, memoryBytes } };
        const [few, many] = [devices, 2 * devices].map((n) =>
          planServing(v3, large, { ...unit, devices: n }),
        );
        expect(many!.weightBytes).toBeLessThan(few!.weightBytes);
        expect(many!.cacheTokensPerDevice).toBeGreaterThanOrEqual(few!.cacheTokensPerDevice);
        const usual = planServing(v3, cluster, { ...unit, devices });
        expect(few!.cacheTokensPerDevice).toBeGreaterThanOrEqual(usual.cacheTokensPerDevice);
        const { weightBytes, cacheBytesPerToken, cacheTokensPerDevice, fits } = few!;
        const filled = weightBytes + cacheTokensPerDevice * cacheBytesPerToken;
        expect(filled <= 0.9 * memoryBytes).toBe(fits);
      }),
    );
  });

  test("an output token's least time is in proportion to tokens over bandwidth", () => {
    fc.assert(
      fc.property(power(10), power(10), (tokens, bandwidth) => {
        const bound = outputTokenBound(v3, { tokens, bandwidth });
        const unit = outputTokenBound(v3, { tokens: 1, bandwidth: 1 });
        expect(bound.secondsPerToken).toBe((unit.secondsPerToken * tokens) / bandwidth);
        expect(bound.tokensPerSecond * bound.secondsPerToken).toBeCloseTo(1, 12);
      }),
    );
  });
});

describe("what cannot be planned", () => {
  function thrown(run: () => unknown): BaseError {
    try {
      run();
    } catch (error) {
      if (BaseError.isInstance(error)) return error;
      throw error;
    }
    throw new Error("nothing was refused");
  }

  test("a named cluster has the devices of its name, or the refusal names one that exists and is larger", () => {
    fc.assert(
      fc.property(fc.constantFrom("h800", "h100"), fc.integer({ min: 1, max: 1e5 }), (family, devices) => {
        const name = `${family}x${devices}`;
        if (devices < 8 || devices % 8 === 0) {
          expect(numDevices(namedCluster(name))).toBe(devices);
          return;
        }
        const error = thrown(() => namedCluster(name));
        expect(error).toBeInstanceOf(UsageError);
        const [offered = ""] = /h\d00x\d+/.exec(error.fix) ?? [];
        expect(numDevices(namedCluster(offered)) - devices).toBeGreaterThan(0);
        expect(numDevices(namedCluster(offered)) - devices).toBeLessThan(8);
      }),
    );
  });

  test("no quantity of a cluster's file may be nothing, negative or a text, and the key is named", () => {
    const device = { memoryGiB: 16, bf16Tflops: 0.5, memoryGBps: 60 };
    const file = { name: "lab", nodes: 2, devicesPerNode: 1, device, intraNodeGBps: 60, interNodeGBps: 1 };
    const keys = ["nodes", "devicesPerNode", "intraNodeGBps", "interNodeGBps", ...Object.keys(device)];
    const wrong = fc.constantFrom(0, -1, "8", null, Number.NaN, Number.POSITIVE_INFINITY);
    fc.assert(
      fc.property(fc.constantFrom(...keys), wrong, (key, value) => {
        const change = { [key]: value };
        const spoiled =
          key in device ? { ...file, device: { ...device, ...change } } : { ...file, ...change };
        const error = thrown(() => parseCluster(spoiled, "lab.json"));
        expect(error).toBeInstanceOf(ConfigError);
        expect(error.message).toContain(key);
        expect(Math.min(error.what.length, error.why.length, error.fix.length)).toBeGreaterThan(0);
      }),
    );
  });

  test("who does as a refused world or batch is told does not meet that rule again", () => {
    const count = fc.integer({ min: 1, max: 40 });
    fc.assert(
      fc.property(count, count, count, fc.integer({ min: 1, max: 2000 }), (nodes, pp, dp, batchRows) => {
        const cluster = namedCluster(`h800x${8 * nodes}`);
        const layout: TrainingLayout = { pp, dp, ep: 1, schedule: "1f1b", microBatchRows: 1 };
        const size = { ...publishedStep, batchRows };
        const world = layoutProblem(v3, cluster, layout, size);
        const numbers = (text: string): number[] => (text.match(/\d+/g) ?? []).map(Number);
        let mended = layout;
        if (pp * dp !== 8 * nodes) {
          expect(world?.fields["kind"]).toBe("world");
          const [newPp, newDp] = numbers(world!.fix);
          mended = { ...layout, pp: newPp!, dp: newDp! };
        }
        const next = layoutProblem(v3, cluster, mended, size);
        expect(next?.fields["kind"]).not.toBe("world");
        if (next?.fields["kind"] !== "batch") return;
        const [rows] = numbers(next.fix);
        expect(layoutProblem(v3, cluster, mended, { ...size, batchRows: rows! })).toBeNull();
      }),
    );
  });
});
