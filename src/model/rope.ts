/**
 * Rotary frequencies, with YaRN for contexts beyond the trained one, and the tables made of them.
 *
 * Source: DeepSeek-V3 report, section 4.3 (YaRN); RoPE on the decoupled channels only, section 2.1.1.
 */
import type { Device, RopeTable } from "../tensor/index.ts";
import { type ModelConfig, qkHeadDim, type YarnConfig } from "./config.ts";

/** Radians per position of each rotary pair: R / 2 of them. */
export function ropeFrequencies(config: ModelConfig): readonly number[] {
  const { qkRopeHeadDim: R, ropeTheta, ropeScaling } = config;
  const plain = Array.from({ length: R / 2 }, (_, j) => ropeTheta ** ((-2 * j) / R));
  if (ropeScaling === null) return plain;

  // Pairs that turn often within the trained context keep their frequency; those that turn less than
  // once are stretched by the factor; between the two there is a linear ramp.
  const { factor, betaFast, betaSlow } = ropeScaling;
  const pairTurning = (turns: number): number =>
    (R * Math.log(ropeScaling.originalMaxPositionEmbeddings / (2 * Math.PI * turns))) /
    (2 * Math.log(ropeTheta));
  const low = Math.max(Math.floor(pairTurning(betaFast)), 0);
  const end = Math.min(Math.ceil(pairTurning(betaSlow)), R - 1); // R - 1, not R / 2 - 1, as released
  const high = low === end ? end + 0.001 : end;
  return plain.map((frequency, j) => {
    const stretch = Math.min(Math.max((j - low) / (high - low), 0), 1);
    return (frequency / factor) * stretch + frequency * (1 - stretch);
  });
}

/** The factor on cosines and sines; 1 unless mscale and mscaleAllDim differ. */
export function ropeAmplitude(yarn: YarnConfig | null): number {
  if (yarn === null) return 1;
  if (yarn.attentionFactor !== undefined) return yarn.attentionFactor;
  const { factor, mscale, mscaleAllDim } = yarn;
  if (mscale > 0 && mscaleAllDim > 0) return yarnScale(factor, mscale) / yarnScale(factor, mscaleAllDim);
  return yarnScale(factor, 1);
}

/** 1 / sqrt(query and key width), sharpened for a stretched context. */
export function softmaxScale(config: ModelConfig): number {
  const plain = qkHeadDim(config) ** -0.5;
  const yarn = config.ropeScaling;
  if (yarn === null || yarn.mscaleAllDim === 0) return plain;
  return plain * yarnScale(yarn.factor, yarn.mscaleAllDim) ** 2;
}

function yarnScale(factor: number, mscale: number): number {
  return factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1;
}

/**
 * Cosines and sines of every position, [positions, R / 2] each; owned by the caller.
 *
 * Angles are computed in doubles: in f32 the product position x frequency is off by 1e-3 at 16k tokens.
 */
export function makeRopeTable(
  device: Device,
  config: ModelConfig,
  positions: number,
  dtype: "f32" | "f64",
): RopeTable {
  const frequencies = ropeFrequencies(config);
  const amplitude = ropeAmplitude(config.ropeScaling);
  const width = frequencies.length;
  const cos = new Float64Array(positions * width);
  const sin = new Float64Array(positions * width);
  for (let p = 0; p < positions; p++) {
    for (let j = 0; j < width; j++) {
      cos[p * width + j] = amplitude * Math.cos(p * frequencies[j]!);
      sin[p * width + j] = amplitude * Math.sin(p * frequencies[j]!);
    }
  }
  const table = {
    cos: device.temporary([positions, width], dtype),
    sin: device.temporary([positions, width], dtype),
  };
  table.cos.write(cos);
  table.sin.write(sin);
  return table;
}
