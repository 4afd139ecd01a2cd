/**
 * `minke bench peers`: the same model, or the same product, in other programs, step by step in turn with ours.
 *
 * Every contestant is a process of its own: all are disturbed alike by a busy machine, none shares memory or threads
 * with another, and one that waits for its turn burns nothing. A peer that fails is a row that says so.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { BackendError, BaseError } from "../../base/index.ts";
import { Contestant } from "./contestant.ts";
import { failedRow, type OurSteps, oursRow, type PeerSteps, type Precision, peerRow } from "./peerRows.ts";
import { gemmSpecs, isSetUp, minkeSpec, notSetUp, type PeerSpec, torchSpecs } from "./peerSpecs.ts";
import type { BenchFlags, BenchRow } from "./row.ts";

/** A thread pool looks for work a little longer before it sleeps; it must not do so in the other's turn. */
const SETTLE_MS = 20;
/** Seconds of the register-peak probe in each round. */
const PROBE = 0.05;

export interface PeersRun {
  readonly threads: number;
  /** Ends every process. */
  readonly stop: AbortSignal;
  /** Tells people what is being waited for. */
  readonly say: (text: string) => void;
}

/** One of ours as it runs; its figures grow with every round. */
interface Running extends OurSteps {
  readonly contestant: Contestant;
  readonly seconds: number[];
  peak: number;
  peakRssBytes: number;
}

export async function* benchPeers(flags: BenchFlags, run: PeersRun): AsyncGenerator<BenchRow> {
  const { preset, rounds } = flags;
  // One product is over in milliseconds.
  const steps = preset === "gemm" ? 4 : 1;
  const specs = preset === "gemm" ? gemmSpecs(run.threads) : torchSpecs(preset, run.threads);
  if (!specs.some(isSetUp)) throw notSetUp(specs[0]!);
  const ours: Running[] = [];
  try {
    for (const precision of ["bf16", "f32"] as const) ours.push(await startOurs(preset, precision, run));
    const measured: PeerSteps[] = [];
    for (const spec of specs) {
      run.say(`${preset}: ${spec.name}: ${spec.hint}`);
      try {
        if (!isSetUp(spec)) throw notSetUp(spec);
        const one = await measurePeer(spec, ours, { rounds, steps }, run.stop);
        measured.push(one);
        yield peerRow(preset, one, ours);
      } catch (error) {
        run.stop.throwIfAborted();
        if (!BaseError.isInstance(error) || ours.some(({ contestant }) => contestant.hasEnded)) throw error;
        yield failedRow(preset, spec.name, error);
      }
    }
    for (const one of ours) yield oursRow(preset, one, measured);
  } finally {
    for (const { contestant } of ours) contestant[Symbol.dispose]();
  }
}

async function startOurs(
  preset: string,
  precision: Precision,
  { threads, stop, say }: PeersRun,
): Promise<Running> {
  const spec = minkeSpec(preset, precision, threads);
  say(`${preset}: ${spec.name}: it starts and warms up`);
  const contestant = await Contestant.start(spec, stop);
  return { contestant, precision, seconds: [], peak: 0, peakRssBytes: 0, settings: contestant.settings };
}

/** Rounds of ours in bf16, the peer, ours in f32, each `steps` steps. */
async function measurePeer(
  spec: PeerSpec,
  ours: readonly Running[],
  { rounds, steps }: { readonly rounds: number; readonly steps: number },
  stop: AbortSignal,
): Promise<PeerSteps> {
  using peer = await Contestant.start(spec, stop);
  requireSameModel(peer, ours[0]!.contestant);
  const seconds: number[] = [];
  const beside: Record<Precision, number[]> = { bf16: [], f32: [] };
  let peakRssBytes = 0;
  const takeTurn = async (contestant: Contestant) => {
    await sleep(SETTLE_MS);
    const { seconds: taken, peakRssBytes: rss } = await contestant.step(steps);
    return { taken: taken / steps, rss: typeof rss === "number" ? rss : 0 };
  };
  for (let round = 0; round < rounds; round++) {
    for (const one of [ours[0]!, null, ours[1]!]) {
      const { taken, rss } = await takeTurn(one?.contestant ?? peer);
      if (one === null) {
        seconds.push(taken);
        peakRssBytes = Math.max(peakRssBytes, rss);
      } else {
        one.seconds.push(taken);
        beside[one.precision].push(taken);
        one.peakRssBytes = Math.max(one.peakRssBytes, rss);
        const { flopsPerSecond } = await one.contestant.ask(`peak ${PROBE}`);
        one.peak = Math.max(one.peak, Number(flopsPerSecond));
      }
    }
  }
  const { name, precision } = spec;
  return { name, precision, settings: peer.settings, seconds, peakRssBytes, beside };
}

/** The same number of trained weights: what a slip in one of the two models would most likely change. */
function requireSameModel(peer: Contestant, ours: Contestant): void {
  const [theirs, mine] = [peer.settings["parameters"], ours.settings["parameters"]];
  if (theirs === undefined || theirs === mine) return;
  throw new BackendError(`${peer.spec.name} trains another model: ${theirs} parameters, ours has ${mine}`, {
    why: "bench/peers/torch_model.py and the preset must say the same",
    fix: "compare the sizes in bench/peers/torch_model.py with src/cli/bench/workload.ts",
    fields: { theirs, mine },
  });
}
