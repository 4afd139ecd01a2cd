import { describe, expect, test } from "vitest";
import { parseModelConfig } from "./configSchema.ts";
import { unit, v3671b } from "./presets.ts";
import { ropeAmplitude, ropeFrequencies, softmaxScale } from "./rope.ts";

function withYarn(width: number, theta: number, yarn: Record<string, number>): ReturnType<typeof unit> {
  const ropeScaling = { type: "yarn", ...yarn };
  return parseModelConfig({ ...unit(), qkRopeHeadDim: width, ropeTheta: theta, ropeScaling }, "test");
}

describe("ropeFrequencies", () => {
  test("are theta^(-2j/R) without YaRN", () => {
    expect(ropeFrequencies(unit())).toEqual([1, 10000 ** -0.25, 10000 ** -0.5, 10000 ** -0.75]);
  });

  test("give V3's YaRN table", () => {
    const frequencies = ropeFrequencies(v3671b());
    const golden = [
      1, 0.749894209, 0.562341325, 0.421696503, 0.316227766, 0.237137371, 0.177827941, 0.133352143, 0.1,
      0.0749894209, 0.0562341325, 0.0390069266, 0.0268793601, 0.0183781462, 0.0124479559, 0.00833450895,
      0.0055, 0.00356199749, 0.0022493653, 0.00137051364, 7.90569415e-4, 4.14990398e-4, 1.77827941e-4,
      3.33380358e-5, 2.5e-5, 1.87473552e-5, 1.40585331e-5, 1.05424126e-5, 7.90569415e-6, 5.92843426e-6,
      4.44569853e-6, 3.33380358e-6,
    ];
    expect(frequencies).toHaveLength(32);
    golden.forEach((value, j) => {
      expect(frequencies[j]! / value).toBeCloseTo(1, 7);
    });
  });

  test("step at pair 20 when both betas are 1, as in Kimi-K2", () => {
    const config = withYarn(64, 5e4, {
      factor: 32,
      originalMaxPositionEmbeddings: 4096,
      betaFast: 1,
      betaSlow: 1,
    });
    const ratio = ropeFrequencies(config).map((f, j) => f / 5e4 ** (-j / 32));
    expect(ratio.slice(0, 20).every((r) => Math.abs(r - 1) < 1e-12)).toBe(true);
    expect(ratio.slice(20).every((r) => Math.abs(r - 1 / 32) < 1e-12)).toBe(true);
  });

  test("ramp beyond the last pair where even that turns more than once, as released: up to R - 1, not R / 2 - 1", () => {
    const config = withYarn(16, 1e4, { factor: 4, originalMaxPositionEmbeddings: 65_536 });
    // Pairs 5.03 and 8.04 turn 32 times and once: the ramp runs from 5 to 9, though the last pair is 7.
    const ratio = ropeFrequencies(config).map((f, j) => f / 1e4 ** (-j / 8));
    const wanted = [1, 1, 1, 1, 1, 1, 0.75 + 0.25 / 4, 0.5 + 0.5 / 4];
    for (const [j, r] of ratio.entries()) expect(r, `pair ${j}`).toBeCloseTo(wanted[j]!, 12);
  });

  test("match the small golden tables", () => {
    const small = withYarn(16, 1e4, { factor: 4, originalMaxPositionEmbeddings: 32 });
    const golden = [1, 0.197642354, 0.025, 0.00790569415, 0.0025, 7.90569415e-4, 2.5e-4, 7.90569415e-5];
    ropeFrequencies(small).forEach((f, j) => {
      expect(f / golden[j]!).toBeCloseTo(1, 7);
    });
  });
});

describe("softmaxScale", () => {
  test("is (192)^-0.5 times 1.3689^2 for V3", () => {
    expect(softmaxScale(v3671b())).toBeCloseTo(0.13523378, 7);
  });
});

describe("ropeAmplitude", () => {
  const yarn = {
    type: "yarn",
    factor: 4,
    originalMaxPositionEmbeddings: 32,
    betaFast: 32,
    betaSlow: 1,
  } as const;
  test("is 1 when both mscales agree, their quotient when they differ, 0.1 ln f + 1 when neither is given", () => {
    expect(ropeAmplitude({ ...yarn, mscale: 1, mscaleAllDim: 1 })).toBe(1);
    expect(ropeAmplitude({ ...yarn, mscale: 1, mscaleAllDim: 0.5 })).toBeCloseTo(
      1.138629436 / 1.069314718,
      8,
    );
    expect(ropeAmplitude({ ...yarn, mscale: 0, mscaleAllDim: 0 })).toBeCloseTo(1.138629436, 8);
  });
});
