/**
 * The distribution that sampling draws from, and one draw from it, in float64, importing nothing of the product.
 *
 * Source for the random words: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), section 3.3,
 * written with whole numbers of any size.
 */
type Numbers = ArrayLike<number>;

export interface Filters {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
}

/** Probability of each id; all zero where there is no distribution. */
export function distributionOracle(logits: Numbers, { temperature, topK, topP }: Filters): number[] {
  const values = Array.from(logits);
  const none = values.map(() => 0);
  const greatest = Math.max(...values);
  if (values.some((value) => !(value < Infinity)) || greatest === -Infinity) return none;
  if (temperature === 0) return none.map((_, id) => (id === values.indexOf(greatest) ? 1 : 0));
  const odds = values.map((value) => Math.exp((value - greatest) / temperature));
  // Whoever has fewer than k tokens before it is kept: no sorting needed to say so.
  const before = (a: number, b: number): boolean =>
    values[a]! > values[b]! || (values[a] === values[b] && a < b);
  const ids = values.map((_, id) => id);
  const firstK = ids.filter((id) => topK === 0 || ids.filter((other) => before(other, id)).length < topK);
  const mass = firstK.reduce((sum, id) => sum + odds[id]!, 0);
  const kept = firstK.filter((id) => {
    const ahead = firstK.filter((other) => before(other, id));
    return (
      ahead.length === 0 || topP === 1 || ahead.reduce((sum, other) => sum + odds[other]!, 0) < topP * mass
    );
  });
  const total = kept.reduce((sum, id) => sum + odds[id]!, 0);
  return none.map((_, id) => (kept.includes(id) ? odds[id]! / total : 0));
}

/** 53 random bits over 2^53, from words 0 and 1 of the counter's block in stream 2^52. */
export function uniformOracle(seed: number, counter: number): number {
  const [low, high] = [(x: bigint) => x & 0xffffffffn, (x: bigint) => x >> 32n];
  const [s, c, stream] = [BigInt(seed), BigInt(counter), 2n ** 52n];
  let block = [low(c), high(c), high(s), high(stream)] as [bigint, bigint, bigint, bigint];
  let key = [low(s), low(stream)] as [bigint, bigint];
  for (let round = 0; round < 10; round++) {
    const [a, b] = [block[0] * 0xd2511f53n, block[2] * 0xcd9e8d57n];
    block = [high(b) ^ block[1] ^ key[0], low(b), high(a) ^ block[3] ^ key[1], low(a)];
    key = [low(key[0] + 0x9e3779b9n), low(key[1] + 0xbb67ae85n)];
  }
  return Number(((block[0] >> 5n) << 26n) | (block[1] >> 6n)) / 2 ** 53;
}

/** The first id at which the distribution's running sum exceeds u; -1 without a distribution. */
export function drawOracle(logits: Numbers, filters: Filters, seed: number, counter: number): number {
  const u = uniformOracle(seed, counter);
  let running = 0;
  return distributionOracle(logits, filters).findIndex((p) => {
    running += p;
    return running > u;
  });
}
