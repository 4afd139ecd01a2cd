import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { makeOracleDevice } from "../../../test/support/gradient.ts";
import { bf16FromNumber, bf16ToNumber, type Dtype } from "../dtype.ts";
import type { Values } from "../kernel.ts";
import { blockWords, cosSinTurn, logUnit, philox, randomNormal, type Words } from "./random.ts";

function readLines(path: string): string[][] {
  const url = new URL(`../../../test/${path}`, import.meta.url);
  return readFileSync(url, "utf8")
    .trim()
    .split("\n")
    .map((line) => line.split(" "));
}

async function draw(n: number, seed: number, stream: number, dtype: Dtype = "f32"): Promise<Values> {
  const y = makeOracleDevice().temporary([n], dtype);
  randomNormal(y, 1, seed, stream);
  return y.read();
}

describe("philox", () => {
  test("gives the known answers of its authors", () => {
    const lines = readLines("golden/philox/philox4x32-10.txt");
    expect(lines).toHaveLength(3);
    for (const line of lines) {
      const [c0, c1, c2, c3, k0, k1, ...result] = line.map((word) => Number.parseInt(word, 16));
      expect(philox([c0!, c1!, c2!, c3!], [k0!, k1!])).toEqual(result);
    }
  });

  test("equals the definition in big integers for any counter and key", () => {
    const word = fc.integer({ min: 0, max: 0xffffffff });
    fc.assert(
      fc.property(fc.tuple(word, word, word, word), fc.tuple(word, word), (counter, key) => {
        expect(philox(counter, key)).toEqual(philoxInBigInts(counter, key));
      }),
    );
  });

  test("every bit of seed, stream and block changes the words", () => {
    const base = blockWords(1, 2, 3).join();
    for (let bit = 2; bit < 53; bit++) {
      const flip = 2 ** bit;
      expect(blockWords(1 + flip, 2, 3).join()).not.toBe(base);
      expect(blockWords(1, 2 + flip, 3).join()).not.toBe(base);
      expect(blockWords(1, 2, 3 + flip).join()).not.toBe(base);
    }
  });
});

function philoxInBigInts(counter: Words, key: readonly [number, number]): number[] {
  let c = counter.map(BigInt);
  let k = key.map(BigInt);
  const mask = 0xffffffffn;
  for (let round = 0; round < 10; round++) {
    const [low, high] = [c[0]! * 0xd2511f53n, c[2]! * 0xcd9e8d57n];
    c = [(high >> 32n) ^ c[1]! ^ k[0]!, high & mask, (low >> 32n) ^ c[3]! ^ k[1]!, low & mask];
    k = [(k[0]! + 0x9e3779b9n) & mask, (k[1]! + 0xbb67ae85n) & mask];
  }
  return c.map(Number);
}

describe("the functions below Box-Muller", () => {
  const words = [0, 1, 2, 2 ** 29, 2 ** 30, 2 ** 31, 3 * 2 ** 30, 2 ** 32 - 1];
  for (let i = 0; i < 5000; i++) words.push(Math.imul(i, 2654435761) >>> 0);

  test("logUnit is the logarithm at the middle of the word's interval", () => {
    for (const word of words) {
      const exact = Math.log((word + 0.5) / 2 ** 32);
      expect(Math.abs(logUnit(word) - exact)).toBeLessThanOrEqual(1e-15 * Math.abs(exact) + 1e-25);
    }
  });

  test("cosSinTurn goes round the unit circle once", () => {
    for (const word of words) {
      const angle = 2 * Math.PI * (word / 2 ** 32);
      const [cos, sin] = cosSinTurn(word);
      expect(Math.abs(cos - Math.cos(angle))).toBeLessThan(1.5e-15);
      expect(Math.abs(sin - Math.sin(angle))).toBeLessThan(1.5e-15);
    }
    expect(cosSinTurn(0)).toEqual([1, 0]);
  });
});

describe("randomNormal", () => {
  test("gives the recorded bits: a seed means the same weights in every version and in native code", async () => {
    const lines = readLines("recorded/randomNormal.txt");
    expect(lines.length).toBeGreaterThan(5);
    for (const [seed, stream, start, ...bits] of lines) {
      const from = Number(start);
      const values = await draw(from + bits.length, Number(seed), Number(stream));
      const actual = new Uint32Array((values as Float32Array).slice(from).buffer);
      expect(Array.from(actual, (word) => word.toString(16).padStart(8, "0"))).toEqual(bits);
    }
  });

  test("number i does not depend on how many are drawn", async () => {
    const long = await draw(103, 9, 4);
    for (const n of [0, 1, 2, 3, 5, 64, 101]) expect(await draw(n, 9, 4)).toEqual(long.slice(0, n));
  });

  test("seeds and streams give different numbers, also beyond 32 bits", async () => {
    const base = await draw(8, 1, 1);
    for (const [seed, stream] of [
      [2, 1],
      [1, 2],
      [1 + 2 ** 32, 1],
      [1, 1 + 2 ** 32],
    ] as const) {
      expect(await draw(8, seed, stream)).not.toEqual(base);
    }
  });

  test("bf16 numbers are the f32 numbers rounded", async () => {
    const exact = await draw(50, 3, 0);
    const stored = await draw(50, 3, 0, "bf16");
    expect(Array.from(stored)).toEqual(Array.from(exact, (v) => bf16ToNumber(bf16FromNumber(v))));
  });

  test("mean and deviation are 0 and the one asked for, within four standard errors", async () => {
    const n = 20_000;
    const y = makeOracleDevice().temporary([n], "f64");
    randomNormal(y, 0.006, 2, 0);
    const values = Array.from(await y.read(), (v) => v / 0.006);
    const mean = values.reduce((sum, v) => sum + v, 0) / n;
    const variance = values.reduce((sum, v) => sum + v * v, 0) / n;
    expect(Math.abs(mean)).toBeLessThan(4 / Math.sqrt(n));
    expect(Math.abs(variance - 1)).toBeLessThan(4 * Math.sqrt(2 / n));
  });
});
