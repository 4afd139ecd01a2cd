import { describe, expect, test } from "vitest";
import { attentionOracle, unfoldLatents } from "../../../test/oracle/attention.ts";
import { makeOracleDevice } from "../../../test/support/gradient.ts";
import { normals } from "../../../test/support/random.ts";
import { distance, tolerances } from "../../../test/support/tolerance.ts";
import { ShapeError } from "../../base/index.ts";
import type { QueueDevice } from "../device.ts";
import { bf16FromNumber, bf16ToNumber, type Dtype } from "../dtype.ts";
import { Tape } from "../tape.ts";
import type { Tensor } from "../tensor.ts";
import { absorbedAttention, cacheAppend } from "./absorbedAttention.ts";
import { attention } from "./attention.ts";

const dims = { heads: 3, nope: 4, rope: 2, value: 5, latent: 6 };
const { heads: H, nope: N, rope: R, value: V, latent: C } = dims;
const SCALE = 1 / Math.sqrt(N + R);

/** T tokens of one text: queries, latents, rotary keys, and the projection that unfolds latents. */
function makeText(device: QueueDevice, T: number) {
  return {
    T,
    q: device.from(normals(T * H * (N + R), 1), [T, H * (N + R)], "f64"),
    kvB: device.from(normals(H * (N + V) * C, 2), [H * (N + V), C], "f64"),
    latent: device.from(normals(T * C, 3), [T, C], "f64"),
    kRope: device.from(normals(T * R, 4), [T, R], "f64"),
  };
}

function makeCache(device: QueueDevice, capacity: number, dtype: Dtype = "f64") {
  const zeros = (width: number): Tensor =>
    device.from(new Float64Array(capacity * width), [capacity, width], dtype);
  return { latent: zeros(C), kRope: zeros(R) };
}

type Text = ReturnType<typeof makeText>;

/** Asks tokens `from` to `to`, whose latents are in the cache. */
function decode(text: Text, cache: ReturnType<typeof makeCache>, from: number, to: number): Tensor {
  return absorbedAttention(
    text.q.rows(from, to),
    text.kvB,
    { ...cache, length: from },
    dims,
    SCALE,
    false,
    "f64",
  );
}

async function expandedOracle(text: Text, round: (w: number) => number = (w) => w): Promise<Float64Array> {
  const [q, kvB, latent, kRope] = await Promise.all(
    [text.q, text.kvB, text.latent, text.kRope].map((tensor) => tensor.read()),
  );
  const kv = unfoldLatents(Float64Array.from(kvB!, round), latent!, H * (N + V), C);
  const sizes = { T: text.T, H, N, R, V, scale: SCALE, offsets: [0, text.T] };
  return attentionOracle({ q: q!, kv, kRope: kRope! }, sizes).o;
}

describe("absorbedAttention", () => {
  test("equals the expanded form over unfolded latents", async () => {
    const device = makeOracleDevice();
    const text = makeText(device, 9);
    const actual = await decode(text, text, 0, 9).read();
    expect(distance(actual, await expandedOracle(text)).frobenius).toBeLessThan(tolerances.oracle.frobenius);
  });

  test("token by token over a growing cache, equals one full pass of attention", async () => {
    const device = makeOracleDevice();
    const text = makeText(device, 8);
    const [kvB, latents] = await Promise.all([text.kvB.read(), text.latent.read()]);
    const kv = device.from(unfoldLatents(kvB, latents, H * (N + V), C), [8, H * (N + V)], "f64");
    const seqOffsets = device.from([0, 8], [2], "i32");
    const full = await attention(text.q, kv, text.kRope, seqOffsets, dims, SCALE, "f64").read();

    const cache = makeCache(device, 10);
    for (let t = 0; t < 8; t++) {
      cacheAppend(text.latent.rows(t, t + 1), text.kRope.rows(t, t + 1), cache.latent, cache.kRope, t);
      const step = await decode(text, cache, t, t + 1).read();
      const expected = full.subarray(t * H * V, (t + 1) * H * V);
      expect(distance(step, expected).frobenius).toBeLessThan(tolerances.oracle.frobenius);
    }
  });

  test("gives a token the same bits alone and asked together with others", async () => {
    const device = makeOracleDevice();
    const text = makeText(device, 7);
    const together = await decode(text, text, 4, 7).read();
    for (let t = 4; t < 7; t++) {
      const alone = await decode(text, text, t, t + 1).read();
      expect(alone).toEqual(together.slice((t - 4) * H * V, (t - 3) * H * V));
    }
  });

  test("rounds the projection to bf16 when asked, as packed weights are", async () => {
    const device = makeOracleDevice();
    const text = makeText(device, 5);
    const past = { ...text, length: 0 };
    const actual = await absorbedAttention(text.q, text.kvB, past, dims, SCALE, true, "f64").read();
    const expected = await expandedOracle(text, (w) => bf16ToNumber(bf16FromNumber(w)));
    expect(distance(actual, expected).frobenius).toBeLessThan(tolerances.oracle.frobenius);
  });

  test("reads no row of the cache beyond the token itself", async () => {
    const device = makeOracleDevice();
    const text = makeText(device, 4);
    const cache = makeCache(device, 6);
    cacheAppend(text.latent, text.kRope, cache.latent, cache.kRope, 0);
    const clean = await decode(text, cache, 2, 3).read();
    cacheAppend(text.latent, text.kRope, cache.latent, cache.kRope, 2);
    cacheAppend(text.latent.rows(2, 3), text.kRope.rows(2, 3), cache.latent, cache.kRope, 2);
    expect(await decode(text, cache, 2, 3).read()).toEqual(clean);
  });

  test("refuses a cache that is too short, and operands that do not fit the heads", () => {
    const device = makeOracleDevice();
    const text = makeText(device, 4);
    const past = { latent: text.latent, kRope: text.kRope, length: 1 };
    const ask = (q: Tensor, kvB: Tensor) => () => absorbedAttention(q, kvB, past, dims, SCALE, false, "f64");
    expect(ask(text.q, text.kvB)).toThrowErrorMatchingInlineSnapshot(`
      [ShapeError: absorbedAttention: 5 tokens do not fit a cache of 4
        why: a cache is made for a number of tokens and does not grow
        fix: make the cache for at least 5 tokens]
    `);
    expect(ask(text.kvB, text.kvB)).toThrow(/absorbedAttention: q is \[27, 6\], it must be \[27, 18\]/);
    expect(ask(text.q, text.q)).toThrow(/absorbedAttention: kvB is \[4, 18\], it must be \[27, 6\]/);
    expect(() => decode(text, { latent: text.kRope, kRope: text.kRope }, 0, 4)).toThrow(ShapeError);
  });

  test("refuses a tape instead of dropping gradients", () => {
    const device = makeOracleDevice();
    const text = makeText(device, 2);
    using tape = new Tape(device);
    expect(() => device.withTape(tape, () => decode(text, text, 0, 2))).toThrow(/called on a tape/);
  });
});

describe("cacheAppend", () => {
  test("writes behind the cached rows in the cache's dtype and leaves the others alone", async () => {
    const device = makeOracleDevice();
    const text = makeText(device, 2);
    const cache = makeCache(device, 5, "bf16");
    cacheAppend(text.latent, text.kRope, cache.latent, cache.kRope, 2);
    for (const [stored, fresh, width] of [
      [cache.latent, text.latent, C],
      [cache.kRope, text.kRope, R],
    ] as const) {
      const rounded = Array.from(await fresh.read(), (v) => bf16ToNumber(bf16FromNumber(v)));
      const zeros = (rows: number): number[] => Array.from({ length: rows * width }, () => 0);
      expect(Array.from(await stored.read())).toEqual([...zeros(2), ...rounded, ...zeros(1)]);
    }
  });

  test("refuses rows beyond the capacity and rows of another width", () => {
    const device = makeOracleDevice();
    const text = makeText(device, 2);
    const cache = makeCache(device, 5);
    const { latent, kRope } = cache;
    expect(() => cacheAppend(text.latent, text.kRope, latent, kRope, 4)).toThrow(
      /cacheAppend: 6 tokens do not fit a cache of 5/,
    );
    expect(() => cacheAppend(text.kRope, text.kRope, latent, kRope, 0)).toThrow(
      /cacheAppend: the cache's latents is \[5, 6\], it must be \[5, 2\]/,
    );
  });
});
