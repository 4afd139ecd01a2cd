/** Quantisers store the same bytes everywhere: reference and natives, over random shapes, dtypes and rules. */
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import {
  absMax,
  dequantizeTiles,
  type Quantized,
  QueueDevice,
  quantizeBlocks,
  quantizeColumns,
  quantizeTiles,
  quantizeWeight,
  ReferenceBackend,
  type Tensor,
  tilesOf,
} from "../../src/tensor/index.ts";
import { panelElements, panelIndex } from "../../src/tensor/panels.ts";
import { offsetsOf } from "../support/cases/grouped.ts";
import { wildNumbers } from "../support/cases/quantize.ts";
import { nativeDevices, nativeIsMissing } from "../support/native.ts";
import { integers } from "../support/random.ts";

const reference = new QueueDevice(new ReferenceBackend(), 2 ** 33);
const natives = nativeDevices();
afterAll(async () => {
  for (const { device } of natives) await device.dispose();
});

/** The bytes of every tensor that `build` makes, on the reference and on each native device. */
async function bytesEverywhere(build: (device: QueueDevice) => readonly Tensor[]): Promise<Set<string>> {
  const all = await Promise.all(
    [reference, ...natives.map(({ device }) => device)].map(async (device) => {
      using _scope = device.scope();
      const read = await Promise.all(build(device).map((tensor) => tensor.readBytes()));
      return read.map((bytes) => Buffer.from(bytes).toString("hex")).join("|");
    }),
  );
  return new Set(all);
}

const parts = ({ codes, scales }: Quantized): readonly Tensor[] => [codes, scales];
const rule = fc.record({ powerOfTwo: fc.boolean(), floor: fc.constantFrom(0, 1e-4) });
const width = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 100, max: 400 }));

describe.skipIf(nativeIsMissing)("random shapes", () => {
  test("rows quantised in tiles, and read again", async () => {
    const shapes = fc.record({
      R: fc.integer({ min: 1, max: 140 }),
      K: width,
      rule,
      x: fc.constantFrom("f32" as const, "bf16" as const),
      codes: fc.constantFrom("f8e4m3" as const, "e5m6" as const),
      rowsPerTile: fc.constantFrom(1 as const, 128 as const),
      isTensorWise: fc.boolean(),
      seed: fc.nat(),
    });
    await fc.assert(
      fc.asyncProperty(shapes, async ({ R, K: anyK, rule, x, codes, rowsPerTile, isTensorWise, seed }) => {
        const K = codes === "e5m6" ? anyK * 2 : anyK;
        const bytes = await bytesEverywhere((device) => {
          const numbers = device.from(wildNumbers(R * K, seed), [R, K], x);
          const amax = isTensorWise ? absMax(numbers) : null;
          const result = quantizeTiles(numbers, { ...rule, amax }, codes, rowsPerTile);
          return [...parts(result), dequantizeTiles(result, x)];
        });
        expect(bytes.size).toBe(1);
      }),
      { numRuns: 60, seed: 1 },
    );
  });

  test("columns of gathered groups, from numbers and from cached codes", async () => {
    const shapes = fc.record({
      rowsOf: fc.array(fc.integer({ min: 0, max: 200 }), { minLength: 1, maxLength: 5 }),
      K: width,
      rule,
      x: fc.constantFrom("f32" as const, "bf16" as const, "f8e4m3" as const, "e5m6" as const),
      columnsPerTile: fc.constantFrom(1 as const, 128 as const),
      seed: fc.nat(),
    });
    await fc.assert(
      fc.asyncProperty(shapes, async ({ rowsOf, K: anyK, rule, x, columnsPerTile, seed }) => {
        const K = x === "e5m6" ? anyK * 2 : anyK;
        const offsets = offsetsOf(rowsOf);
        const R = offsets.at(-1)!;
        const bytes = await bytesEverywhere((device) => {
          const isCoded = x === "f8e4m3" || x === "e5m6";
          const numbers = device.from(wildNumbers(50 * K, seed), [50, K], isCoded ? "f32" : x);
          const { codes, scales } = quantizeColumns(isCoded ? quantizeTiles(numbers, rule, x) : numbers, {
            ...rule,
            rows: device.from(integers(R, 50, seed), [R], "i32"),
            offsets: device.from(offsets, [offsets.length], "i32"),
            columnsPerTile,
          });
          // Scale rows between groups are garbage: codes times scales are compared where a tile lies.
          return [codes, ...owned(offsets, scales)];
        });
        expect(bytes.size).toBe(1);
      }),
      { numRuns: 60, seed: 2 },
    );
  });

  test("weights in panels of both orders, which hold the codes that checkpoints get", async () => {
    const shapes = fc.record({ N: width, K: width, powerOfTwo: fc.boolean(), seed: fc.nat() });
    await fc.assert(
      fc.asyncProperty(shapes, async ({ N, K, powerOfTwo, seed }) => {
        const numbers = Float32Array.from(wildNumbers(N * K, seed));
        const bytes = await bytesEverywhere((device) => {
          const target = {
            panels: device.empty([1, panelElements(N, K)], "f8e4m3"),
            panelsT: device.empty([1, panelElements(K, N)], "f8e4m3"),
            scales: device.empty([1, tilesOf(N), tilesOf(K)], "f32"),
          };
          quantizeWeight(device.from(numbers, [N, K], "f32"), target, [1, N, K], powerOfTwo);
          return Object.values(target);
        });
        expect(bytes.size).toBe(1);
        const { codes, scales } = quantizeBlocks(numbers, N, K, "w", powerOfTwo);
        const panels = new Uint8Array(panelElements(N, K));
        const panelsT = new Uint8Array(panelElements(K, N));
        for (let n = 0; n < N; n++) {
          for (let k = 0; k < K; k++) {
            panels[panelIndex(n, k, K, "f8e4m3")] = codes[n * K + k]!;
            panelsT[panelIndex(k, n, N, "f8e4m3")] = codes[n * K + k]!;
          }
        }
        const host = [panels, panelsT, new Uint8Array(scales.buffer)];
        expect([...bytes]).toEqual([host.map((part) => Buffer.from(part).toString("hex")).join("|")]);
      }),
      { numRuns: 40, seed: 3 },
    );
  });
});

/** The rows of scales that groups own. */
function owned(offsets: readonly number[], scales: Tensor): readonly Tensor[] {
  return offsets.slice(1).flatMap((end, g) => {
    const start = offsets[g]!;
    const first = Math.floor(start / 128) + g;
    return end === start ? [] : [scales.rows(first, first + tilesOf(end - start))];
  });
}
