/** Seeded numbers for tests: mulberry32, chosen because it fits in five lines and is not the product's own generator. */
export function makeRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Standard normal numbers by Box-Muller. */
export function normals(length: number, seed: number, std: number = 1, mean: number = 0): Float64Array {
  const random = makeRandom(seed);
  return Float64Array.from({ length }, () => {
    const radius = Math.sqrt(-2 * Math.log(1 - random()));
    return mean + std * radius * Math.cos(2 * Math.PI * random());
  });
}

/** Whole numbers from 0 to `below` (exclusive). */
export function integers(length: number, below: number, seed: number): Int32Array {
  const random = makeRandom(seed);
  return Int32Array.from({ length }, () => Math.floor(random() * below));
}
