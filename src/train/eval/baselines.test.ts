import { describe, expect, test } from "vitest";
import { makeRandom } from "../../../test/support/random.ts";
import { byteTokenizer } from "../../text/index.ts";
import { measureBaselines } from "./baselines.ts";
import { ByteModel } from "./byteModel.ts";
import { KneserNeyTrigram } from "./kneserNey.ts";

const V = 7;

function randomDocument(seed: number, length: number): Int32Array {
  const random = makeRandom(seed);
  return Int32Array.from({ length }, () => Math.floor(V * random() ** 2));
}

describe("KneserNeyTrigram", () => {
  test("gives probabilities that add up to 1 in seen and unseen contexts", async () => {
    const model = new KneserNeyTrigram(V, 0);
    await model.train([randomDocument(1, 60), randomDocument(2, 40)]);
    for (let a = 0; a < V; a++) {
      for (let b = 0; b < V; b++) {
        const sum = Array.from({ length: V }, (_, c) => model.probability(a, b, c)).reduce(
          (x, y) => x + y,
          0,
        );
        expect(sum).toBeCloseTo(1, 12);
      }
    }
  });

  test("equals the formula written out for a text that fits the head", async () => {
    // Start token 0; text 1 2 1 2 3. Trigrams: 001 012 121 212 123, each once: n1 = 5, n2 = 0, D3 = 0.95 (capped).
    const model = new KneserNeyTrigram(4, 0);
    await model.train([Int32Array.from([1, 2, 1, 2, 3])]);
    // Pairs by distinct predecessors: 01:1, 12:2 (0,2), 21:1, 23:1; tokens: 1:2 (0,2), 2:1, 3:1.
    const d1 = 2 / (2 + 2 * 1);
    const p1 = (1 - d1 + (d1 * 3) / 4) / 4; // of 3: one pair of four, three seen tokens, four ids
    const d2 = 3 / (3 + 2 * 1);
    const p2 = (1 - d2 + d2 * 2 * p1) / 2; // of 3 after 2
    const p3 = (1 - 0.95 + 0.95 * 2 * p2) / 2; // of 3 after 1 2
    expect(model.probability(1, 2, 3)).toBeCloseTo(p3, 12);
  });

  test("costs its own text less than another one", async () => {
    const model = new KneserNeyTrigram(V, 0);
    await model.train([randomDocument(3, 500)]);
    expect(await model.nats([randomDocument(3, 500)])).toBeLessThan(
      await model.nats([randomDocument(4, 500)]),
    );
  });
});

describe("ByteModel", () => {
  test("learns a text that repeats to almost nothing a byte", async () => {
    const text = new TextEncoder().encode("abcabcabc".repeat(300));
    const model = new ByteModel();
    await model.train([text]);
    expect((await model.nats([text])) / text.length).toBeLessThan(0.02);
  });

  test("costs 8 bits a byte before it has seen anything", async () => {
    const nats = await new ByteModel().nats([Uint8Array.of(1, 2, 3)]);
    expect(nats / 3 / Math.LN2).toBeCloseTo(8, 12);
  });
});

describe("measureBaselines", () => {
  test("ranks models by what they know of a text with structure", async () => {
    const random = makeRandom(9);
    const words = ["the ", "people ", "of ", "state ", "union ", "are ", "free "];
    const makeText = (count: number): string =>
      Array.from({ length: count }, () => words[Math.floor(random() * 7)]).join("");
    const train = [{ id: "train", text: makeText(2000) }];
    const held = [{ id: "held", text: makeText(300) }];
    const baselines = await measureBaselines(train, held, byteTokenizer());
    const byName = new Map(baselines.map(({ name, bitsPerByte }) => [name.split(" ")[0], bitsPerByte]));
    // log2(7) bits a word of five bytes on average is the least that is possible.
    for (const value of byName.values()) expect(value).toBeGreaterThan(0.4);
    expect(byName.get("interpolated")!).toBeLessThan(1.5);
    expect(byName.get("order-2")!).toBeLessThan(1.6);
  });
});
