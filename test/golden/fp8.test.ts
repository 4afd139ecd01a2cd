/** Our E4M3 against PyTorch's float8_e4m3fn casts: every code, thousands of numbers, tiles and blocks. */
import { afterAll, describe, expect, test } from "vitest";
import {
  dequantizeBlocks,
  e4m3FromNumber,
  e4m3ToNumber,
  type Quantized,
  QueueDevice,
  quantizeBlocks,
  quantizeColumns,
  quantizeTiles,
  ReferenceBackend,
} from "../../src/tensor/index.ts";
import { type Golden, readGolden } from "../support/golden.ts";

const device = new QueueDevice(new ReferenceBackend(), 2 ** 28);
afterAll(() => device.dispose());

const rules = [
  { name: "plain", powerOfTwo: false },
  { name: "power", powerOfTwo: true },
] as const;

describe("casts", () => {
  const golden = readGolden("fp8/casts");

  test("every code has PyTorch's value", () => {
    const { values } = golden("values");
    expect(values.length).toBe(256);
    expect(Float64Array.from(values, (_, code) => e4m3ToNumber(code))).toEqual(values);
  });

  test("numbers get the codes of PyTorch's cast; but an infinity becomes NaN, where PyTorch makes 448 of it", () => {
    const bits = Int32Array.from(golden("x_bits").values);
    const numbers = new Float32Array(bits.buffer);
    const wanted = golden("codes").values;
    const wrong: number[] = [];
    for (const [i, x] of numbers.entries()) {
      const code = e4m3FromNumber(x);
      const isRight = Number.isFinite(x) ? code === wanted[i] : (code & 0x7f) === 0x7f;
      if (!isRight) wrong.push(x);
    }
    expect(numbers.length).toBeGreaterThan(5000);
    expect(wrong).toEqual([]);
  });
});

describe.each(rules)("scales: $name", ({ name, powerOfTwo }) => {
  async function expectGolden(result: Quantized, golden: (name: string) => Golden): Promise<void> {
    const codes = await result.codes.readBytes();
    expect(Float64Array.from(codes)).toEqual(golden(`${name}_codes`).values);
    const scales = await result.scales.read();
    const wanted = golden(`${name}_scales`).values;
    expect(Float64Array.from(scales.subarray(0, wanted.length))).toEqual(wanted);
  }

  test("tiles of 1x128 have PyTorch's codes and scales", async () => {
    using _scope = device.scope();
    const golden = readGolden("fp8/tiles");
    const x = device.from(golden("x").values, golden("x").shape, "f32");
    await expectGolden(quantizeTiles(x, { powerOfTwo, floor: 1e-4 }), golden);
  });

  test("tiles of 128x1 have PyTorch's codes and scales", async () => {
    using _scope = device.scope();
    const golden = readGolden("fp8/columns");
    const x = device.from(golden("x").values, golden("x").shape, "f32");
    await expectGolden(quantizeColumns(x, { powerOfTwo, floor: 0 }), golden);
  });

  test.each(["weight_576", "weight_192", "weight_1"])("blocks of %s have PyTorch's", (file) => {
    const golden = readGolden(`fp8/${file}`);
    const { shape, values } = golden("x");
    const [N, K] = [shape[0]!, shape[1]!];
    const result = quantizeBlocks(values, N, K, file, powerOfTwo);
    expect(Float64Array.from(result.codes)).toEqual(golden(`${name}_codes`).values);
    expect(Float64Array.from(result.scales)).toEqual(golden(`${name}_scales`).values);
    const again = dequantizeBlocks(result, N, K);
    const worst = again.reduce((most, v, i) => Math.max(most, Math.abs(v - values[i]!)), 0);
    expect(worst).toBeLessThanOrEqual(Math.max(...values.map(Math.abs)) * 2 ** -4);
  });
});
