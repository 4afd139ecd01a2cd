import { describe, expect, test } from "vitest";
import { countParameters, presetConfig, trainingFlopsPerToken } from "../model/index.ts";
import {
  addPhases,
  addWork,
  attentionWork,
  denseMlpWork,
  headWork,
  moeWork,
  mtpProjectionWork,
  noWork,
  type Work,
  type WorkSize,
} from "./work.ts";

const config = presetConfig("v3-671b");
const counts = countParameters(config);
const size: WorkSize = { tokens: 4096, rowLength: 4096, precision: "fp8", ep: 64, devicesPerToken: 7.5 };

function products({ fp8Flops, bf16Flops }: Work): number {
  return fp8Flops + bf16Flops;
}

describe("the work of a layer", () => {
  const latentNorms = 1536 + 512;

  test("forward products are two FLOPs for each weight that a token meets", () => {
    const projections = counts.mlaPerLayer - latentNorms;
    expect(products(attentionWork(config, size).forward)).toBe(2 * 4096 * projections);
    expect(products(denseMlpWork(config, size).forward)).toBe(2 * 4096 * counts.denseMlp);
    const router = 256 * 7168;
    expect(products(moeWork(config, size).forward)).toBe(2 * 4096 * (9 * counts.expert + router));
    expect(products(headWork(config, size).forward)).toBe(2 * 4096 * counts.head);
    expect(products(mtpProjectionWork(config, size).forward)).toBe(2 * 4096 * 2 * 7168 * 7168);
  });

  test("weight gradients are as many FLOPs as forward; input gradients too, and the up-projections once more", () => {
    for (const work of [denseMlpWork, moeWork, headWork]) {
      const { forward, backwardInput, backwardWeight } = work(config, size);
      expect(products(backwardInput)).toBe(products(forward));
      expect(products(backwardWeight)).toBe(products(forward));
    }
    const { forward, backwardInput, backwardWeight } = attentionWork(config, size);
    const upProjections = 2 * 4096 * (1536 * 128 * 192 + 512 * 128 * 256);
    expect(products(backwardWeight)).toBe(products(forward));
    expect(products(backwardInput)).toBe(products(forward) + upProjections);
  });

  test("the attention core is causal, 2.5 times as much in backward, and has no weights", () => {
    const { forward, backwardInput, backwardWeight } = attentionWork(config, size);
    expect(forward.attentionForwardFlops).toBe(2 * 128 * 320 * 2048 * 4096);
    expect(backwardInput.attentionBackwardFlops).toBe(2.5 * forward.attentionForwardFlops);
    expect(backwardWeight.attentionBackwardFlops).toBe(0);
  });

  test("all layers and the head together are the model's training FLOPs, recomputation left out", () => {
    const dense = addPhases(attentionWork(config, size), denseMlpWork(config, size));
    const moe = addPhases(attentionWork(config, size), moeWork(config, size));
    const forward = addWork(
      ...Array.from({ length: 3 }, () => dense.forward),
      ...Array.from({ length: 58 }, () => moe.forward),
      headWork(config, size).forward,
    );
    // Three times forward; the count of the model has norms and router biases too, a few millionths.
    const perToken = (3 * (products(forward) + forward.attentionForwardFlops)) / 4096;
    expect(perToken / trainingFlopsPerToken(config, 4096).main).toBeCloseTo(1, 4);
  });

  test("what the report keeps in BF16 is BF16: head, router, MTP's projection", () => {
    expect(headWork(config, size).forward.fp8Flops).toBe(0);
    expect(mtpProjectionWork(config, size).forward.fp8Flops).toBe(0);
    expect(moeWork(config, size).forward.bf16Flops).toBe(2 * 4096 * 256 * 7168);
    const plain = { ...size, precision: "bf16" as const };
    expect(moeWork(config, plain).forward.fp8Flops).toBe(0);
  });

  test("BF16 has no casts to pay for, and twice the operands", () => {
    const plain = { ...size, precision: "bf16" as const };
    expect(attentionWork(config, plain).forward.passBytes).toBeLessThan(
      attentionWork(config, size).forward.passBytes,
    );
    expect(attentionWork(config, plain).backwardWeight.passBytes).toBe(0);
    expect(attentionWork(config, plain).forward.productBytes).toBeGreaterThan(
      attentionWork(config, size).forward.productBytes,
    );
  });

  test("more devices in an expert group mean fewer weights to read, the same FLOPs", () => {
    const [few, many] = [moeWork(config, { ...size, ep: 8 }), moeWork(config, { ...size, ep: 256 })];
    expect(products(few.forward)).toBe(products(many.forward));
    const weights = (experts: number): number => experts * counts.expert;
    expect(few.forward.productBytes - many.forward.productBytes).toBe(weights(32) - weights(1));
  });

  test("a model without a query latent recomputes the key/value up-projection alone", () => {
    const lite = presetConfig("v2-lite-16b");
    const { forward, backwardInput } = attentionWork(lite, size);
    expect(products(backwardInput) - products(forward)).toBe(2 * 4096 * 512 * 16 * 256);
  });
});

describe("addWork", () => {
  test("of nothing is no work", () => {
    expect(addWork()).toEqual(noWork);
  });
});
