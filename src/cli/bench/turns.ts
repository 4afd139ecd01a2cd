/**
 * Contestants that take timed turns, so that a busy machine slows all of them alike. Nothing is known here of PyTorch.
 *
 * A round is: ours in bf16, the peers, ours in f32, right after one another; the register peaks are measured behind the
 * turns, because a probe between two of them would let the machine change (and heat up) before one side only. All peers
 * share the rounds, so that the best of each is the best of as many tries at the same times; only models so large that
 * the peers would not fit memory together meet ours one by one.
 */
import { totalmem } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { BackendError } from "../../base/index.ts";
import { Contestant, type ContestantSpec, isFaultOf } from "./contestant.ts";
import {
  type Beside,
  failedRow,
  oursRow,
  type PeerSteps,
  type Precision,
  peerRow,
  type Steps,
} from "./peerRows.ts";
import { howToSetUp, isSetUp } from "./peerSetup.ts";
import type { PeerSpec } from "./peerSpecs.ts";
import type { BenchRow } from "./row.ts";

/** A thread pool looks for work a little longer before it sleeps; it must not do so in the other's turn. */
const SETTLE_MS = 20;
/** Seconds of the register-peak probe in each round. */
const PROBE = 0.05;

export interface TurnsRun {
  readonly preset: string;
  readonly rounds: number;
  /** Of a turn. */
  readonly steps: number;
  /** Ends every process. */
  readonly stop: AbortSignal;
  /** Tells people what is being waited for. */
  readonly say: (text: string) => void;
}

type Ours = Readonly<Record<Precision, Contestant>>;

/** A row for each peer that is set up, then ours; a peer that fails is a row that says so, one of ours ends the run. */
export async function* takeTurns(
  oursSpecs: Readonly<Record<Precision, ContestantSpec>>,
  peers: readonly PeerSpec[],
  run: TurnsRun,
): AsyncGenerator<BenchRow> {
  const { preset, stop, say } = run;
  const specs = peers.filter(({ setup }) => setup === null || isSetUp(setup));
  const absent = new Set(peers.flatMap(({ setup }) => (setup === null || isSetUp(setup) ? [] : [setup])));
  for (const setup of absent) say(`${preset}: left out: ${howToSetUp(setup)}`);
  if (specs.length === 0) throw nothingSetUp(peers);
  const start = (precision: Precision): Promise<Contestant> => {
    say(`${preset}: ${oursSpecs[precision].name}: it starts and warms up`);
    return Contestant.start(oursSpecs[precision], stop);
  };
  using bf16 = await start("bf16");
  using f32 = await start("f32");
  const ours: Ours = { bf16, f32 };
  const measured: PeerSteps[] = [];
  for (const group of fitTogether(specs, bf16) ? [specs] : specs.map((spec) => [spec])) {
    const peers: Contestant[] = [];
    try {
      for (const spec of group) {
        say(`${preset}: ${spec.name}: ${spec.hint}`);
        try {
          peers.push(await startPeer(spec, bf16, stop));
        } catch (error) {
          yield failureOf(spec, error, run);
        }
      }
      if (peers.length === 0) continue;
      const played = await playRounds(ours, peers, run);
      for (const spec of group) {
        const outcome = played.peers.get(spec.name);
        if (outcome === undefined) continue;
        if ("error" in outcome) {
          yield failureOf(spec, outcome.error, run);
          continue;
        }
        const one = { name: spec.name, precision: spec.precision, ...outcome, beside: played.ours };
        measured.push(one);
        yield peerRow(preset, one);
      }
    } finally {
      for (const peer of peers) peer[Symbol.dispose]();
    }
  }
  const alone = measured.length > 0 ? null : (await playRounds(ours, [], run)).ours;
  for (const precision of ["bf16", "f32"] as const) yield oursRow(preset, precision, measured, alone);
}

/** A program that trains takes some 40 bytes a weight, and a gigabyte for itself; half of the memory stays free. */
function fitTogether(specs: readonly PeerSpec[], ours: Contestant): boolean {
  const { parameters } = ours.settings;
  const bytes = (typeof parameters === "number" ? 40 * parameters : 0) + 1e9;
  return specs.length * bytes < totalmem() / 2;
}

/** The row of a peer that failed. @throws the error, if it is not the peer's or the run was stopped */
function failureOf(spec: PeerSpec, error: unknown, { preset, stop }: TurnsRun): BenchRow {
  stop.throwIfAborted();
  if (!isFaultOf(spec, error)) throw error;
  return failedRow(preset, spec.name, error);
}

function nothingSetUp(peers: readonly PeerSpec[]): BackendError {
  const scripts = [...new Set(peers.flatMap(({ setup }) => (setup === null ? [] : [setup.script])))];
  return new BackendError("there is no peer to measure beside", {
    why: "other programs live in environments of their own, in a clone, and none of them is set up",
    fix: `run ${scripts.map((script) => `bench/peers/${script}`).join(" or ")} first`,
    fields: { scripts },
  });
}

async function startPeer(spec: PeerSpec, ours: Contestant, stop: AbortSignal): Promise<Contestant> {
  const peer = await Contestant.start(spec, stop);
  try {
    requireSameModel(peer, ours);
    return peer;
  } catch (error) {
    peer[Symbol.dispose]();
    throw error;
  }
}

/** One contestant's turns of all rounds. */
class Turns {
  readonly #contestant: Contestant;
  /** What ours says that a step trains; undefined of a product. */
  readonly #tokensPerStep: unknown;
  readonly #seconds: number[] = [];
  #peakRssBytes = 0;

  constructor(contestant: Contestant, ours: Contestant) {
    this.#contestant = contestant;
    this.#tokensPerStep = ours.settings["tokensPerStep"];
  }

  async take(steps: number): Promise<void> {
    await sleep(SETTLE_MS);
    const { seconds, tokens, peakRssBytes } = await this.#contestant.step(steps);
    this.#requireTokens(tokens, steps);
    this.#seconds.push(seconds / steps);
    if (typeof peakRssBytes === "number") this.#peakRssBytes = Math.max(this.#peakRssBytes, peakRssBytes);
  }

  get steps(): Steps {
    const { settings } = this.#contestant;
    return { seconds: this.#seconds, peakRssBytes: this.#peakRssBytes, settings };
  }

  #requireTokens(tokens: unknown, steps: number): void {
    const wanted = typeof this.#tokensPerStep === "number" ? this.#tokensPerStep * steps : undefined;
    if (tokens === wanted) return;
    const { name } = this.#contestant.spec;
    throw new BackendError(`${name} trained ${tokens ?? "no"} tokens in a turn, not ${wanted ?? "none"}`, {
      why: "speeds compare only where both sides do the same work",
      fix: "compare rows and tokens in bench/peers/torch_model.py with src/cli/bench/workload.ts",
      fields: { contestant: name, tokens, wanted },
    });
  }
}

/** What a peer's turns came to. One that fails leaves the rounds; the others go on. */
type Outcome = Steps | { readonly error: unknown };

async function playRounds(
  { bf16, f32 }: Ours,
  peers: readonly Contestant[],
  { rounds, steps }: TurnsRun,
): Promise<{ readonly ours: Beside; readonly peers: ReadonlyMap<string, Outcome> }> {
  const turns = { bf16: new Turns(bf16, bf16), f32: new Turns(f32, bf16) };
  const theirs = peers.map((peer) => ({
    name: peer.spec.name,
    spec: peer.spec,
    turns: new Turns(peer, bf16),
  }));
  const failures = new Map<string, unknown>();
  const peaks = { bf16: 0, f32: 0 };
  for (let round = 0; round < rounds; round++) {
    await turns.bf16.take(steps);
    for (const { name, spec, turns: peer } of theirs) {
      if (failures.has(name)) continue;
      try {
        await peer.take(steps);
      } catch (error) {
        if (!isFaultOf(spec, error)) throw error;
        failures.set(name, error);
      }
    }
    await turns.f32.take(steps);
    peaks.bf16 = Math.max(peaks.bf16, await probePeak(bf16));
    peaks.f32 = Math.max(peaks.f32, await probePeak(f32));
  }
  return {
    ours: {
      bf16: { precision: "bf16", peak: peaks.bf16, ...turns.bf16.steps },
      f32: { precision: "f32", peak: peaks.f32, ...turns.f32.steps },
    },
    peers: new Map(
      theirs.map(({ name, turns: peer }): [string, Outcome] => [
        name,
        failures.has(name) ? { error: failures.get(name) } : peer.steps,
      ]),
    ),
  };
}

/** Multiplications and additions a second that registers reach. */
async function probePeak(ours: Contestant): Promise<number> {
  const answer = await ours.ask(`peak ${PROBE}`);
  const { flopsPerSecond } = answer;
  if (typeof flopsPerSecond === "number" && flopsPerSecond > 0) return flopsPerSecond;
  throw new BackendError(
    `${ours.spec.name} answered ${JSON.stringify(answer)} where its peak was asked for`,
    {
      why: "shares of the peak need one",
      fix: "run minke doctor: it tests the kernels",
      fields: { contestant: ours.spec.name },
    },
  );
}

/** The same number of trained weights: what a slip in one of the two models would most likely change. */
function requireSameModel(peer: Contestant, ours: Contestant): void {
  const [theirs, mine] = [peer.settings["parameters"], ours.settings["parameters"]];
  if (theirs === mine) return;
  const { name } = peer.spec;
  throw new BackendError(`${name} trains another model: ${theirs} parameters, ours has ${mine}`, {
    why: "bench/peers/torch_model.py and the preset must say the same",
    fix: "compare the sizes in bench/peers/torch_model.py with src/cli/bench/workload.ts",
    fields: { contestant: name, theirs, mine },
  });
}
