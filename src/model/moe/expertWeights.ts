/**
 * The routed experts' weights: all of them, or the share that is held here.
 *
 * Where rows come from several senders, each sender's gradients are summed apart: they belong to different blocks of
 * the step's micro-batches, and blocks are added by a tree.
 */
import type { Parameter } from "../../tensor/index.ts";

/** Neighbouring experts that are held here. */
export interface ExpertShare {
  readonly first: number;
  readonly count: number;
  /** How many send rows to them. */
  readonly senders: number;
}

export interface ExpertWeights {
  /** [E, N, K], or the share's part of it; the first sender's gradients are its own */
  readonly weight: Parameter;
  /** By sender: the same weight with that sender's gradients. */
  readonly bySender: readonly Parameter[];
}
