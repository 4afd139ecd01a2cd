/**
 * Contestants that take timed turns, so that a busy machine slows all of them alike. Nothing is known here of PyTorch.
 *
 * A round is: ours in bf16, the peer, ours in f32, right after one another; the register peaks are measured behind the
 * turns, because a probe between two of them would let the machine change (and heat up) before one side only.
 */
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
  for (const spec of specs) {
    say(`${preset}: ${spec.name}: ${spec.hint}`);
    try {
      const one = await measurePeer(spec, ours, run);
      measured.push(one);
      yield peerRow(preset, one);
    } catch (error) {
      stop.throwIfAborted();
      if (!isFaultOf(spec, error)) throw error;
      yield failedRow(preset, spec.name, error);
    }
  }
  const alone = measured.length > 0 ? null : (await playRounds(ours, null, run)).ours;
  for (const precision of ["bf16", "f32"] as const) yield oursRow(preset, precision, measured, alone);
}

function nothingSetUp(peers: readonly PeerSpec[]): BackendError {
  const scripts = [...new Set(peers.flatMap(({ setup }) => (setup === null ? [] : [setup.script])))];
  return new BackendError("there is no peer to measure beside", {
    why: "other programs live in environments of their own, in a clone, and none of them is set up",
    fix: `run ${scripts.map((script) => `bench/peers/${script}`).join(" or ")} first`,
    fields: { scripts },
  });
}

async function measurePeer(spec: PeerSpec, ours: Ours, run: TurnsRun): Promise<PeerSteps> {
  using peer = await Contestant.start(spec, run.stop);
  requireSameModel(peer, ours.bf16);
  const { peer: steps, ours: beside } = await playRounds(ours, peer, run);
  return { name: spec.name, precision: spec.precision, ...steps!, beside };
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

async function playRounds(
  { bf16, f32 }: Ours,
  peer: Contestant | null,
  { rounds, steps }: TurnsRun,
): Promise<{ readonly ours: Beside; readonly peer: Steps | null }> {
  const turns = { bf16: new Turns(bf16, bf16), f32: new Turns(f32, bf16) };
  const theirs = peer === null ? null : new Turns(peer, bf16);
  const peaks = { bf16: 0, f32: 0 };
  for (let round = 0; round < rounds; round++) {
    for (const one of [turns.bf16, theirs, turns.f32]) await one?.take(steps);
    peaks.bf16 = Math.max(peaks.bf16, await probePeak(bf16));
    peaks.f32 = Math.max(peaks.f32, await probePeak(f32));
  }
  return {
    ours: {
      bf16: { precision: "bf16", peak: peaks.bf16, ...turns.bf16.steps },
      f32: { precision: "f32", peak: peaks.f32, ...turns.f32.steps },
    },
    peer: theirs?.steps ?? null,
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
