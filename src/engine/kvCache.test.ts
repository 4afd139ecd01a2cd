import { describe, expect, test } from "vitest";
import { makeOracleDevice } from "../../test/support/gradient.ts";
import { normals } from "../../test/support/random.ts";
import { tinyConfig } from "../../test/support/tinyModel.ts";
import { ContextLengthError, ShapeError } from "../base/index.ts";
import { precisions, presetConfig } from "../model/index.ts";
import { PlanBackend, QueueDevice } from "../tensor/index.ts";
import { KvCache } from "./kvCache.ts";

describe("KvCache.bytes", () => {
  // Report, section 2.1.1: 512 + 64 numbers a token and layer; 61 layers in bf16.
  test("is 70,272 bytes a token for DeepSeek-V3", () => {
    expect(KvCache.bytes(presetConfig("v3-671b"), precisions.bf16, 1)).toBe(70_272);
    expect(70_272).toBe(61 * (512 + 64) * 2);
  });

  test("is a 71st of what as many heads with keys and values of their own would take", () => {
    const { numAttentionHeads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim, numHiddenLayers } =
      presetConfig("v3-671b");
    const ordinary = numHiddenLayers * numAttentionHeads * (qkNopeHeadDim + qkRopeHeadDim + vHeadDim) * 2;
    expect(Math.round(ordinary / KvCache.bytes(presetConfig("v3-671b"), precisions.bf16, 1))).toBe(71);
  });

  test.each([
    ["v3-671b", "bf16", 4096],
    ["v3-671b", "f32", 100],
    ["nano", "bf16", 256],
    ["mini", "bf16", 512],
  ] as const)("equals what a cache of %s in %s for %d tokens allocates", (preset, precision, capacity) => {
    const device = new QueueDevice(new PlanBackend(), Number.MAX_SAFE_INTEGER);
    const config = presetConfig(preset);
    {
      using _cache = new KvCache(device, config, precisions[precision], capacity);
      expect(device.arena.liveBytes).toBe(KvCache.bytes(config, precisions[precision], capacity));
      expect(device.arena.liveCount).toBe(2 * config.numHiddenLayers);
    }
    expect(device.arena.liveBytes).toBe(0);
  });

  test("grows with tokens, layers and width, and not with heads", () => {
    const bytes = (changes: Parameters<typeof tinyConfig>[0], capacity = 8): number =>
      KvCache.bytes(tinyConfig(changes), precisions.f32, capacity);
    expect(bytes({}, 16)).toBe(2 * bytes({}));
    expect(bytes({ numHiddenLayers: 4 })).toBe(2 * bytes({}));
    expect(bytes({ numAttentionHeads: 8 })).toBe(bytes({}));
    expect(bytes({ kvLoraRank: 24 })).toBe(2 * bytes({}));
  });
});

describe("KvCache", () => {
  const device = makeOracleDevice();
  const config = tinyConfig();
  const { kvLoraRank: C, qkRopeHeadDim: R } = config;

  test("keeps what each layer appends, in order, apart from the other layers", async () => {
    using cache = new KvCache(device, config, precisions.f32, 5);
    const given = [0, 1].map((layer) => ({
      latent: Float32Array.from(normals(5 * C, layer)),
      kRope: Float32Array.from(normals(5 * R, 10 + layer)),
    }));
    for (const [from, to] of [
      [0, 3],
      [3, 4],
      [4, 5],
    ] as const) {
      expect(cache.length).toBe(from);
      for (const [layer, { latent, kRope }] of given.entries()) {
        using _scope = device.scope();
        const part = (values: Float32Array, width: number): Float32Array =>
          values.subarray(from * width, to * width);
        cache.append(
          layer,
          device.from(part(latent, C), [to - from, C], "f32"),
          device.from(part(kRope, R), [to - from, R], "f32"),
        );
      }
      cache.advance(to - from);
    }
    for (const [layer, { latent, kRope }] of given.entries()) {
      using _scope = device.scope();
      const stored = cache.append(layer, device.empty([0, C], "f32"), device.empty([0, R], "f32"));
      expect(await stored.latent.read()).toEqual(latent);
      expect(await stored.kRope.read()).toEqual(kRope);
    }
  });

  test("refuses tokens beyond its capacity", () => {
    using cache = new KvCache(device, config, precisions.f32, 2);
    using _scope = device.scope();
    const tokens = (count: number): void => {
      cache.append(0, device.empty([count, C], "f32"), device.empty([count, R], "f32"));
    };
    expect(() => tokens(3)).toThrow(ShapeError);
    tokens(2);
    cache.advance(2);
    expect(() => tokens(1)).toThrow(/3 tokens do not fit a cache of 2/);
  });

  test("is not made larger than the model's context", () => {
    const before = device.arena.liveCount;
    const tooLarge = (): KvCache => new KvCache(device, config, precisions.f32, 33);
    expect(tooLarge).toThrow(ContextLengthError);
    expect(tooLarge).toThrow(/33 tokens do not fit a context of 32/);
    expect(device.arena.liveCount).toBe(before);
  });
});
