import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { makeOracleDevice } from "../../../test/support/gradient.ts";
import { normals } from "../../../test/support/random.ts";
import { tinyConfig } from "../../../test/support/tinyModel.ts";
import { ConfigError } from "../../base/index.ts";
import type { ModelConfig } from "../config.ts";
import { ParameterFactory } from "../layers/factory.ts";
import type { Pass } from "../layers/pass.ts";
import { precisions } from "../precision.ts";
import { presetConfig } from "../presets.ts";
import { maxViolation, updateRouterBias } from "./balance.ts";
import { Router } from "./router.ts";

const device = makeOracleDevice();

function makeRouter(changes: Partial<ModelConfig> = {}): { router: Router; factory: ParameterFactory } {
  const config = tinyConfig({ initializerRange: 0.5, ...changes });
  const factory = new ParameterFactory(device, config, { precision: precisions.f32, isTrained: false });
  const router = new Router(config, factory, "gate");
  factory.initialize(1);
  return { router, factory };
}

interface Routed {
  readonly expertIds: number[][];
  readonly weights: number[][];
}

async function route({ router }: { router: Router }, tokens: number, seed: number): Promise<Routed> {
  using _scope = device.scope();
  const { hiddenSize: D, numExpertsPerTok: K } = router.config;
  const x = device.from(normals(tokens * D, seed), [tokens, D], "f32");
  // The router reads nothing of a pass but its precision.
  const { expertIds, weights } = router.forward(x, { precision: precisions.f32 } as Pass);
  const rows = (values: ArrayLike<number>): number[][] =>
    Array.from({ length: tokens }, (_, t) => Array.from(values).slice(t * K, (t + 1) * K));
  return { expertIds: rows(await expertIds.read()), weights: rows(await weights.read()) };
}

describe("Router", () => {
  test("sends each token to K different experts within topkGroup groups, with weights that sum to the scale", async () => {
    for (const changes of [{}, { nGroup: 1, topkGroup: 1, numExpertsPerTok: 3 }, { topkGroup: 1 }]) {
      const made = makeRouter(changes);
      const { nGroup, topkGroup, nRoutedExperts, numExpertsPerTok, routedScalingFactor } = made.router.config;
      const { expertIds, weights } = await route(made, 40, 2);
      for (const [t, chosen] of expertIds.entries()) {
        expect(new Set(chosen).size).toBe(numExpertsPerTok);
        expect(chosen).toEqual(chosen.toSorted((a, b) => a - b));
        const groups = new Set(chosen.map((e) => Math.floor(e / (nRoutedExperts / nGroup))));
        expect(groups.size).toBeLessThanOrEqual(topkGroup);
        expect(weights[t]!.reduce((sum, w) => sum + w, 0)).toBeCloseTo(routedScalingFactor, 5);
      }
      expect(new Set(expertIds.flat()).size).toBeGreaterThan(numExpertsPerTok);
    }
  });

  test("lets the bias choose and never weigh", async () => {
    const plain = makeRouter({ nGroup: 1, topkGroup: 1 });
    const before = await route(plain, 20, 3);
    const { nRoutedExperts: E } = plain.router.config;
    plain.router.bias.value.write(new Array<number>(E).fill(7));
    // The same bias for all chooses as none does.
    expect(await route(plain, 20, 3)).toEqual(before);
    plain.router.bias.value.write(Array.from({ length: E }, (_, e) => (e === 5 ? 100 : 0)));
    const forced = await route(plain, 20, 3);
    for (const [t, chosen] of forced.expertIds.entries()) {
      expect(chosen).toContain(5);
      const sum = forced.weights[t]!.reduce((total, w) => total + w, 0);
      expect(sum).toBeCloseTo(2.5, 5);
      expect(Math.max(...forced.weights[t]!)).toBeLessThan(2.5);
    }
  });

  test("refuses the routing of the model's predecessors by name: it would choose other experts", () => {
    const factory = new ParameterFactory(device, tinyConfig(), {
      precision: precisions.f32,
      isTrained: false,
    });
    const make = (): Router => new Router(presetConfig("v2-lite-16b"), factory, "gate");
    expect(make).toThrow(ConfigError);
    expect(make).toThrow(/routing by softmax and greedy cannot be run/);
  });
});

describe("updateRouterBias", () => {
  test("moves every bias by gamma towards an even load, and evens out a load that follows it", async () => {
    const { router } = makeRouter({ nGroup: 1, topkGroup: 1 });
    const { nRoutedExperts: E } = router.config;
    // A router that sends nearly everything to the first two experts.
    router.bias.value.write(Array.from({ length: E }, (_, e) => (e < 2 ? 1 : 0)));
    const loadOf = async (): Promise<number[]> => {
      const load = new Array<number>(E).fill(0);
      for (const chosen of (await route({ router }, 64, 9)).expertIds) for (const e of chosen) load[e]!++;
      return load;
    };
    const first = maxViolation(await loadOf());
    expect(first).toBe(3);
    for (let step = 0; step < 120; step++) {
      const load = await loadOf();
      using _scope = device.scope();
      updateRouterBias(router.bias, device.from(load, [E], "i32"), 0.02);
    }
    expect(maxViolation(await loadOf())).toBeLessThan(0.6);
  });
});

describe("maxViolation", () => {
  test("is 0 for an even load and E - 1 where one expert does all the work", () => {
    expect(maxViolation([4, 4, 4, 4])).toBe(0);
    expect(maxViolation([16, 0, 0, 0])).toBe(3);
    expect(maxViolation([6, 4, 4, 2])).toBe(0.5);
  });

  test("is 0 where nothing was routed at all", () => {
    expect(maxViolation([0, 0])).toBe(0);
  });

  test("is never negative, and does not change with the number of tokens", () => {
    const loads = fc.array(fc.nat({ max: 1000 }), { minLength: 1, maxLength: 16 });
    fc.assert(
      fc.property(loads, (load) => {
        expect(maxViolation(load)).toBeGreaterThanOrEqual(0);
        expect(maxViolation(load.map((count) => 8 * count))).toBeCloseTo(maxViolation(load), 10);
      }),
    );
  });
});
