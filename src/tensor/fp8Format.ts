/**
 * How the operands of a projection become FP8: what a run settles once, and what differs from projection to projection.
 *
 * Which projection has which format is the table in model/precision.ts.
 *
 * Source: DeepSeek-V3 report, sections 3.3.1 to 3.3.3.
 */
import type { CodeDtype, ScaleRule } from "./fp8.ts";

/** Settled for a whole run. Everything but `reportRecipe` is an ablation. */
export interface Fp8Recipe {
  /** "tile": a scale for each tile or block. "tensor": one for each tensor. */
  readonly scaling: "tile" | "tensor";
  /** Of gradients. The report saw training with 128x128 blocks diverge. */
  readonly gradientTile: "1x128" | "128x128";
  /** Products that are summed before their sum is scaled and added in f32; 0, for 14 bits only, is all of them. */
  readonly promotion: 0 | 16 | 32 | 64 | 128;
  /** 0: block sums in f32. 14: as on the H800, 32 products at a time cut to 14 fraction bits. */
  readonly accumulatorBits: 0 | 14;
  /** Which scales are powers of two: those that the report names, all, or none. */
  readonly powerOfTwo: "named" | "all" | "none";
}

export const reportRecipe: Fp8Recipe = {
  scaling: "tile",
  gradientTile: "1x128",
  promotion: 128,
  accumulatorBits: 0,
  powerOfTwo: "named",
};

/** How a tensor of activations or gradients is cut into tiles, and what their scales are. */
export interface TileFormat extends ScaleRule {
  readonly dtype: CodeDtype;
  /** Rows or columns that share a scale across the tile's 128 numbers. */
  readonly width: 1 | 128;
  readonly scaling: Fp8Recipe["scaling"];
}

/** How one projection y = x W^T is multiplied in FP8. */
export interface Fp8Format {
  readonly input: TileFormat;
  readonly gradient: TileFormat;
  readonly weight: { readonly powerOfTwo: boolean; readonly scaling: Fp8Recipe["scaling"] };
  /**
   * From what the weight's gradient is made: from the tiles that went into the product, or from x itself, where that is
   * made again or held in a format of its own.
   */
  readonly saves: "tiles" | "input";
  readonly promotion: Fp8Recipe["promotion"];
  readonly accumulatorBits: Fp8Recipe["accumulatorBits"];
}
