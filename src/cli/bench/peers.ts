/**
 * `minke bench peers`: the same model, or the same product, in other programs, step by step in turn with ours.
 *
 * Every contestant is a process of its own: all are disturbed alike by a busy machine, none shares memory or threads
 * with another, and one that waits for its turn burns nothing.
 */
import { gemmSpecs, minkeSpec, torchSpecs } from "./peerSpecs.ts";
import type { BenchFlags, BenchRow } from "./row.ts";
import { type TurnsRun, takeTurns } from "./turns.ts";

export interface PeersRun extends Pick<TurnsRun, "stop" | "say"> {
  readonly threads: number;
  /** A folder for what peers compile. */
  readonly scratch: string;
}

export function benchPeers(
  flags: BenchFlags,
  { threads, scratch, stop, say }: PeersRun,
): AsyncGenerator<BenchRow> {
  const { preset, rounds } = flags;
  const ours = { bf16: minkeSpec(preset, "bf16", threads), f32: minkeSpec(preset, "f32", threads) };
  const isGemm = preset === "gemm";
  const peers = isGemm ? gemmSpecs(threads) : torchSpecs(preset, threads, scratch);
  // One product is over in milliseconds.
  return takeTurns(ours, peers, { preset, rounds, steps: isGemm ? 4 : 1, stop, say });
}
