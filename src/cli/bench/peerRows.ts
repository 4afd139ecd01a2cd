/** What was measured beside peers, as rows: each peer in its setting, then ours against the fastest of them. */
import type { BaseError } from "../../base/index.ts";
import { type BenchRow, timing } from "./row.ts";

export type Precision = "f32" | "bf16";

/** Steps of one contestant, one after another, in seconds. */
export interface Steps {
  readonly seconds: readonly number[];
  readonly peakRssBytes: number;
  /** What it said of itself. */
  readonly settings: Readonly<Record<string, unknown>>;
}

export interface OurSteps extends Steps {
  readonly precision: Precision;
  /** Multiplications and additions a second that registers reach in this precision, measured in the same rounds. */
  readonly peak: number;
}

/** Ours in both precisions, in the rounds of one peer. */
export type Beside = Readonly<Record<Precision, OurSteps>>;

export interface PeerSteps extends Steps {
  readonly name: string;
  readonly precision: Precision;
  readonly beside: Beside;
}

/** The peer's speed, its share of the peak of its precision, and how many times as fast ours were beside it. */
export function peerRow(preset: string, peer: PeerSteps): BenchRow {
  return {
    ...heading(preset, peer.name),
    who: peer.name.split(" ")[0]!,
    version: text(peer.settings["torch"] ?? peer.settings["version"]),
    threads: number(peer.settings["threads"]),
    setting: text(peer.settings["setting"]),
    ...speed(peer, peer.beside[peer.precision]),
    minkeBf16Ratio: ratio(peer, "bf16"),
    minkeF32Ratio: ratio(peer, "f32"),
    minkeBf16MedianRatio: medianRatio(peer, "bf16"),
    minkeF32MedianRatio: medianRatio(peer, "f32"),
  };
}

/**
 * Ours in the rounds of the fastest peer, which is the least flattering one: as many tries as it had, at the same time.
 *
 * @param alone  ours without a peer beside them, where none got through
 */
export function oursRow(
  preset: string,
  precision: Precision,
  peers: readonly PeerSteps[],
  alone: Beside | null,
): BenchRow {
  const byBest = peers.toSorted((a, b) => timing(a.seconds).best - timing(b.seconds).best);
  const [fastest] = byBest;
  const same = byBest.find((peer) => peer.precision === precision);
  const ours = (fastest?.beside ?? alone!)[precision];
  return {
    ...heading(preset, `Minke ${precision}`),
    who: "Minke",
    version: text(ours.settings["minke"]),
    threads: number(ours.settings["threads"]),
    setting: text(ours.settings["kernels"]),
    ...speed(ours, ours),
    fastestPeer: fastest?.name ?? null,
    ratio: fastest === undefined ? null : ratio(fastest, precision),
    medianRatio: fastest === undefined ? null : medianRatio(fastest, precision),
    fastestSamePrecision: same?.name ?? null,
    samePrecisionRatio: same === undefined ? null : ratio(same, precision),
    fastestPeerRssBytes: fastest?.peakRssBytes ?? null,
  };
}

/** A peer that did not get through. */
export function failedRow(preset: string, name: string, error: BaseError): BenchRow {
  return { ...heading(preset, name), failed: error.what, why: error.why, fix: error.fix };
}

function heading(preset: string, name: string): BenchRow & { readonly preset: string } {
  return { bench: preset === "gemm" ? "gemm" : "peers", name: `${preset}: ${name}`, preset };
}

/** Sizes are what ours says of the model: both sides train the same one. */
function speed(
  { precision, seconds, peakRssBytes }: Steps & { readonly precision: Precision },
  { settings, peak }: OurSteps,
): Record<string, string | number | null> {
  const { best, median } = timing(seconds);
  const [tokens, flops] = [number(settings["tokensPerStep"]), number(settings["flopsPerStep"])!];
  return {
    precision,
    rounds: seconds.length,
    seconds: best,
    medianSeconds: median,
    tokensPerSecond: tokens === null ? null : tokens / best,
    medianTokensPerSecond: tokens === null ? null : tokens / median,
    gflops: flops / best / 1e9,
    peakGflops: peak / 1e9,
    share: flops / best / peak,
    peakRssBytes: peakRssBytes > 0 ? peakRssBytes : null,
  };
}

function ratio(peer: PeerSteps, precision: Precision): number {
  return timing(peer.seconds).best / timing(peer.beside[precision].seconds).best;
}

function medianRatio(peer: PeerSteps, precision: Precision): number {
  return timing(peer.seconds).median / timing(peer.beside[precision].seconds).median;
}

function number(value: unknown): number | null {
  return typeof value === "number" ? value : null;
}

function text(value: unknown): string | null {
  return typeof value === "string" ? value : null;
}
