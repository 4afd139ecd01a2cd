/**
 * What a forward pass is told besides its activations.
 *
 * Tokens are packed [T, ...]; `seqOffsets` says where one sequence ends and the next begins, so that
 * training rows, a prompt and single decoded tokens run through the same model.
 */
import type { CachedTokens, Param, RopeTable, Tensor } from "../../tensor/index.ts";
import type { ExpertDispatch } from "../moe/expertDispatch.ts";
import type { Precision } from "../precision.ts";

export interface Pass {
  /** [T] i32: each token's position in its sequence */
  readonly positions: Tensor;
  /** [S + 1] i32: attention never crosses these */
  readonly seqOffsets: Tensor;
  readonly rope: RopeTable;
  readonly precision: Precision;
  /** Null in training and evaluation: nothing came before. */
  readonly cache: LatentCache | null;
  /** Weight of the sequence-wise balance loss; null where no loss is built. */
  readonly balanceAlpha: Param | null;
  /** How tokens reach experts that are held elsewhere; null where all are here. */
  readonly dispatch: ExpertDispatch | null;
}

/**
 * The past, as latents: one normed latent and one rotated key per token and layer, nothing per head.
 *
 * Declared here, implemented by whoever generates text. Layers are numbered as in the checkpoint, MTP's included.
 */
export interface LatentCache {
  /** Tokens cached before this pass. */
  readonly length: number;
  /** Stores the new tokens behind those; returns the whole storage, and the number of tokens before this pass. */
  append(layer: number, latent: Tensor, kRope: Tensor): CachedTokens;
}
