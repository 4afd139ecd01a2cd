/**
 * An order-2 model of bytes: each byte from the two before it, by counts.
 *
 * Orders are interpolated by Witten and Bell's rule: a context gives as much weight to the order below it as it has
 * seen different bytes.
 */
import { setImmediate as nextTurn } from "node:timers/promises";

const SLICE = 1 << 16;

export class ByteModel {
  /** counts[order][context * 256 + byte] */
  readonly #counts: readonly Uint32Array[] = [256, 256 ** 2, 256 ** 3].map((size) => new Uint32Array(size));
  readonly #totals: readonly Uint32Array[] = [1, 256, 256 ** 2].map((size) => new Uint32Array(size));
  readonly #types: readonly Uint32Array[] = [1, 256, 256 ** 2].map((size) => new Uint32Array(size));

  async train(texts: readonly Uint8Array[]): Promise<void> {
    for (const text of texts) {
      await walk(text, (contexts, byte) => {
        for (let order = 0; order < 3; order++) {
          const context = contexts[order]!;
          const cell = context * 256 + byte;
          if (this.#counts[order]![cell]!++ === 0) this.#types[order]![context]!++;
          this.#totals[order]![context]!++;
        }
      });
    }
  }

  /** Nats that the texts cost. */
  async nats(texts: readonly Uint8Array[]): Promise<number> {
    let total = 0;
    for (const text of texts) {
      await walk(text, (contexts, byte) => {
        let p = 1 / 256;
        for (let order = 0; order < 3; order++) {
          const context = contexts[order]!;
          const types = this.#types[order]![context]!;
          if (types === 0) break;
          const total = this.#totals[order]![context]!;
          p = (this.#counts[order]![context * 256 + byte]! + types * p) / (total + types);
        }
        total -= Math.log(p);
      });
    }
    return total;
  }
}

async function walk(
  text: Uint8Array,
  visit: (contexts: readonly number[], byte: number) => void,
): Promise<void> {
  let [a, b] = [0, 0];
  for (const [i, byte] of text.entries()) {
    visit([0, b, a * 256 + b], byte);
    [a, b] = [b, byte];
    if (i % SLICE === SLICE - 1) await nextTurn();
  }
}
