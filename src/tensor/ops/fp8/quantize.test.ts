import { afterAll, describe, expect, test } from "vitest";
import { offsetsOf } from "../../../../test/support/cases/grouped.ts";
import { ReferenceBackend } from "../../backend/reference/reference.ts";
import { dequantizeBlocks, quantizeBlocks } from "../../blocks.ts";
import { QueueDevice } from "../../device.ts";
import { absMax } from "./absMax.ts";
import { columnScaleRows, columnTiles, quantizeColumns } from "./quantizeColumns.ts";
import { dequantizeTiles, quantizeTiles } from "./quantizeTiles.ts";

const device = new QueueDevice(new ReferenceBackend(), 2 ** 28);
afterAll(() => device.dispose());

const activations = { powerOfTwo: false, floor: 1e-4 };
const powers = { powerOfTwo: true, floor: 1e-4 };

describe("quantizeTiles", () => {
  test("gives the codes, scale and error that the specification lists for 0.01 i", async () => {
    using _scope = device.scope();
    const numbers = Float32Array.from({ length: 128 }, (_, i) => 0.01 * i);
    const x = device.from(numbers, [1, 128], "f32");
    const results = [activations, powers].map((rule) => quantizeTiles(x, rule));
    const [plain, power] = await Promise.all(results.map(({ codes }) => codes.read()));
    expect([1, 50, 127].map((i) => plain![i])).toEqual([3.5, 176, 448]);
    expect([1, 50, 127].map((i) => power![i])).toEqual([2.5, 128, 320]);
    expect((await results[0]!.scales.read())[0]).toBeCloseTo(0.00283482, 8);
    expect((await results[1]!.scales.read())[0]).toBe(2 ** -8);
    const norm = Math.hypot(...numbers);
    for (const [result, wanted] of [
      [results[0]!, 0.0253],
      [results[1]!, 0.0273],
    ] as const) {
      const again = await dequantizeTiles(result, "f32").read();
      expect(Math.hypot(...numbers.map((v, i) => v - again[i]!)) / norm).toBeCloseTo(wanted, 4);
    }
  });

  test("gives the bytes that the specification lists for (i - 64) / 32", async () => {
    using _scope = device.scope();
    const x = device.from(
      Array.from({ length: 128 }, (_, i) => (i - 64) / 32),
      [1, 128],
      "bf16",
    );
    const bytes = async (rule: typeof activations): Promise<string> =>
      Buffer.from(await quantizeTiles(x, rule).codes.readBytes()).toString("hex");
    const plain = await bytes(activations);
    expect(plain.slice(0, 32)).toBe("fefefefdfdfdfdfcfcfcfcfcfbfbfbfb");
    expect([plain.slice(126, 138), plain.slice(248)]).toEqual(["ce004e565a5e", "7d7d7e7e"]);
    const power = await bytes(powers);
    expect(power.slice(0, 32)).toBe("f8f8f8f7f7f7f6f6f6f6f6f5f5f5f4f4");
    expect([power.slice(126, 138), power.slice(248)]).toEqual(["c80048505458", "77777878"]);
  });

  test("an outlier spoils its own tile only", async () => {
    using _scope = device.scope();
    const x = device.from(
      Array.from({ length: 256 }, (_, i) => (i === 3 ? 1e5 : 0.125)),
      [1, 256],
      "f32",
    );
    const values = await dequantizeTiles(quantizeTiles(x, activations), "f32").read();
    expect([values[4], values[200]]).toEqual([0, 0.125]);
    const asTensor = await dequantizeTiles(
      quantizeTiles(x, { ...activations, amax: absMax(x) }),
      "f32",
    ).read();
    expect([asTensor[4], asTensor[200]]).toEqual([0, 0]);
  });

  test("NaN or infinity makes its tile NaN, codes and scale, and no other tile", async () => {
    using _scope = device.scope();
    const x = device.from(
      Array.from({ length: 512 }, (_, i) => (i === 5 ? Number.NaN : i === 300 ? -1 / 0 : 1)),
      [2, 256],
      "f32",
    );
    const { codes, scales } = quantizeTiles(x, activations);
    const bytes = await codes.readBytes();
    expect(new Set(bytes.subarray(0, 128))).toEqual(new Set([0x7f]));
    expect(new Set(bytes.subarray(128, 256))).toEqual(new Set([0x7e]));
    expect([...(await scales.read())].map(Number.isNaN)).toEqual([true, false, true, false]);
  });

  test("e5m6 keeps six bits of a number where f8e4m3 keeps three", async () => {
    using _scope = device.scope();
    const x = device.from([1, 1 + 1 / 64, 1 + 1 / 8, 1.984375], [1, 4], "f32");
    const read = (dtype: "e5m6" | "f8e4m3") => dequantizeTiles(quantizeTiles(x, powers, dtype), "f32").read();
    expect([...(await read("e5m6"))]).toEqual([1, 1 + 1 / 64, 1 + 1 / 8, 1.984375]);
    expect([...(await read("f8e4m3"))]).toEqual([1, 1, 1 + 1 / 8, 2]);
  });
});

describe("quantizeColumns", () => {
  test("every group's tiles fit between its scale row and the next group's", () => {
    const rowsOf = [0, 1, 127, 128, 129, 0, 256, 300, 5];
    const offsets = offsetsOf(rowsOf);
    const tiles = columnTiles(offsets, rowsOf.length);
    const used = tiles.map(({ scaleRow }) => scaleRow);
    expect(new Set(used).size).toBe(used.length);
    expect(Math.max(...used)).toBeLessThan(columnScaleRows(offsets.at(-1)!, rowsOf.length));
    expect(tiles.reduce((sum, { from, to }) => sum + to - from, 0)).toBe(offsets.at(-1));
  });

  test("with scales that are powers of two, columns of a cached tile lose nothing", async () => {
    using _scope = device.scope();
    const numbers = Array.from({ length: 4 * 128 }, (_, i) => ((i % 15) + 1) * 2 ** -(i % 3));
    const cached = quantizeTiles(device.from(numbers, [4, 128], "f32"), powers);
    const wanted = await dequantizeTiles(cached, "f32").read();
    const { codes, scales } = quantizeColumns(cached, powers);
    const [c, s] = [await codes.read(), await scales.read()];
    expect(Float32Array.from(c, (code, i) => code * s[i % 128]!)).toEqual(wanted);
  });
});

describe("quantizeBlocks", () => {
  test("ragged edges have blocks of their own, and reading back stays within half a step", () => {
    const [N, K] = [192, 130];
    const weights = Float32Array.from({ length: N * K }, (_, i) => (1.3 + (i % 7)) * (i % 2 === 0 ? 1 : -1));
    const coded = quantizeBlocks(weights, N, K, "w");
    expect(coded.scales.length).toBe(4);
    const again = dequantizeBlocks(coded, N, K);
    const worst = Math.max(...again.map((v, i) => Math.abs(v - weights[i]!) / Math.abs(weights[i]!)));
    expect(worst).toBeLessThan(2 ** -4 + 1e-6);
  });

  test("refuses NaN and names the block that holds it", () => {
    const weights = new Float32Array(200 * 140);
    weights[150 * 140 + 130] = Number.NaN;
    expect(() => quantizeBlocks(weights, 200, 140, "model.layers.1.mlp.upProj")).toThrowError(
      "model.layers.1.mlp.upProj holds NaN in the block of 128x128 that begins at [128, 128]",
    );
  });
});
