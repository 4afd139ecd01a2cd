/** Real processes that speak the contestants' lines; what they say and when is written here, so that claims are sharp. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { scratchFolder } from "../../../test/support/scratchFolder.ts";
import { BaseError } from "../../base/index.ts";
import type { ContestantSpec } from "./contestant.ts";
import type { Precision } from "./peerRows.ts";
import type { PeerSetup } from "./peerSetup.ts";
import type { PeerSpec } from "./peerSpecs.ts";
import type { BenchRow } from "./row.ts";
import { takeTurns } from "./turns.ts";

interface Habits {
  /** JavaScript: what a turn of `count` steps is answered with, `turn` being the number of the turn. */
  readonly answer?: string;
  readonly parameters?: number;
  /** Milliseconds before a missing answer is a failure. */
  readonly patience?: number;
  /** Where it writes each line that it is told. */
  readonly log?: string;
}

function contestant(
  name: string,
  { answer, parameters = 7, patience = 20_000, log }: Habits = {},
): ContestantSpec {
  const script = `
    const say = (value) => console.log(JSON.stringify(value));
    say({ ready: true, parameters: ${parameters}, tokensPerStep: 100, flopsPerStep: 1e6, threads: 2 });
    let turn = 0;
    require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
      const [word, count] = [line.split(" ")[0], Number(line.split(" ")[1])];
      ${log === undefined ? "" : `require("node:fs").appendFileSync(${JSON.stringify(log)}, ${JSON.stringify(name)} + " " + word + "\\n");`}
      if (word === "peak") return say({ flopsPerSecond: 1e9 });
      turn++;
      const answer = (${answer ?? "{ seconds: count, tokens: 100 * count }"});
      if (answer !== null) say(answer);
    });`;
  const times = { readyTimeoutMs: 20_000, answerTimeoutMs: patience };
  return { name, command: process.execPath, args: ["-e", script], ...times };
}

function peer(name: string, habits: Habits = {}, setup: PeerSetup | null = null): PeerSpec {
  return { ...contestant(name, habits), precision: "f32", hint: "it starts", setup };
}

interface Outcome {
  readonly rows: readonly BenchRow[];
  readonly said: readonly string[];
  readonly error: unknown;
}

async function race(
  peers: readonly PeerSpec[],
  { bf16 = {}, f32 = {}, rounds = 2 }: Partial<Record<Precision, Habits>> & { readonly rounds?: number } = {},
): Promise<Outcome> {
  const ours = { bf16: contestant("Minke bf16", bf16), f32: contestant("Minke f32", f32) };
  const [rows, said]: [BenchRow[], string[]] = [[], []];
  const stop = new AbortController().signal;
  const run = { preset: "nano", rounds, steps: 1, stop, say: (text: string) => void said.push(text) };
  try {
    for await (const row of takeTurns(ours, peers, run)) rows.push(row);
  } catch (error) {
    return { rows, said, error };
  }
  return { rows, said, error: null };
}

function whatOf(error: unknown): string {
  if (!BaseError.isInstance(error)) throw new Error(`no failure of ours: ${String(error)}`);
  return error.what;
}

const notInstalled: PeerSetup = { who: "PyTorch", script: "setup.sh", package: ["nowhere"] };

describe("takeTurns", () => {
  test("in a round the turns of all follow one another and the peaks come behind them", async () => {
    const log = join(await scratchFolder(), "lines");
    await race([peer("PyTorch", { log }), peer("JAX", { log })], { bf16: { log }, f32: { log } });
    const turns = ["Minke bf16 step", "PyTorch step", "JAX step", "Minke f32 step"];
    const round = [...turns, "Minke bf16 peak", "Minke f32 peak"];
    expect((await readFile(log, "utf8")).trimEnd().split("\n")).toEqual([...round, ...round]);
  });

  test("peers that do not fit memory together meet ours one by one, and ours is held against the fastest then", async () => {
    // Ours is at its best beside the slow peer; that is no figure to hold against the fast one.
    const parameters = 1e12;
    const bf16 = { answer: "{ seconds: turn <= 3 ? 0.1 : 0.5, tokens: 100 }", parameters };
    const slow = peer("slow", { answer: "{ seconds: 4, tokens: 100 }", parameters });
    const fast = peer("fast", { answer: "{ seconds: 1, tokens: 100 }", parameters });
    const { rows, error } = await race([slow, fast], { bf16, f32: { parameters }, rounds: 3 });
    expect(error).toBeNull();
    expect(rows.map(({ name }) => name)).toEqual([
      "nano: slow",
      "nano: fast",
      "nano: Minke bf16",
      "nano: Minke f32",
    ]);
    expect(rows[2]).toMatchObject({ seconds: 0.5, rounds: 3, fastestPeer: "fast", ratio: 2 });
    expect(rows[1]).toMatchObject({ rounds: 3, minkeBf16Ratio: 2, tokensPerSecond: 100, share: 0.001 });
  });

  test("peers that share the rounds are held against the same steps of ours", async () => {
    const bf16 = { answer: "{ seconds: turn === 2 ? 0.25 : 0.5, tokens: 100 }" };
    const slow = peer("slow", { answer: "{ seconds: 4, tokens: 100 }" });
    const fast = peer("fast", { answer: "{ seconds: 1, tokens: 100 }" });
    const { rows, error } = await race([slow, fast], { bf16, rounds: 3 });
    expect(error).toBeNull();
    expect(rows[0]).toMatchObject({ name: "nano: slow", minkeBf16Ratio: 16, minkeBf16MedianRatio: 8 });
    expect(rows[1]).toMatchObject({ name: "nano: fast", minkeBf16Ratio: 4, minkeBf16MedianRatio: 2 });
    expect(rows[2]).toMatchObject({ seconds: 0.25, rounds: 3, fastestPeer: "fast", ratio: 4 });
  });

  test("a peer that is too late is a row that says so, and the next is measured", async () => {
    const { rows, error } = await race([
      peer("stuck", { answer: "turn > 1 ? null : { seconds: 1, tokens: 100 }", patience: 900 }),
      peer("good"),
    ]);
    expect(error).toBeNull();
    expect(rows[0]).toMatchObject({
      name: "nano: stuck",
      failed: 'stuck said nothing for 900 ms at "step 1"',
    });
    expect(rows[1]).toMatchObject({ name: "nano: good", rounds: 2 });
    expect(rows[2]).toMatchObject({ who: "Minke", rounds: 2, fastestPeer: "good" });
  });

  test.each([
    ["late", "null", 'Minke f32 said nothing for 900 ms at "step 1"'],
    ["confused", "{ minutes: 1 }", 'Minke f32 answered {"minutes":1} where seconds were asked for'],
    ["idle", "{ seconds: 1, tokens: 99 }", "Minke f32 trained 99 tokens in a turn, not 100"],
  ])("one of ours that is %s ends the run, and no peer is blamed for it", async (_, answer, what) => {
    const { rows, error } = await race([peer("PyTorch")], {
      f32: { answer, patience: answer === "null" ? 900 : 20_000 },
    });
    expect(whatOf(error)).toBe(what);
    expect(rows).toEqual([]);
  });

  test("a peer that trains fewer tokens or another model has no figures", async () => {
    const { rows } = await race([
      peer("lazy", { answer: "{ seconds: 1, tokens: 50 }" }),
      peer("silent", { answer: "{ seconds: 1 }" }),
      peer("other", { parameters: 8 }),
    ]);
    expect(rows.slice(0, 3).map(({ failed }) => failed)).toEqual([
      // It fails before the first round.
      "other trains another model: 8 parameters, ours has 7",
      "lazy trained 50 tokens in a turn, not 100",
      "silent trained no tokens in a turn, not 100",
    ]);
    // Nobody is left to measure beside: ours stand alone.
    expect(rows[3]).toMatchObject({ name: "nano: Minke bf16", seconds: 1, rounds: 2, ratio: null });
  });

  test("a peer that is not set up is one line that says how, and no row", async () => {
    const absent = [peer("PyTorch f32", {}, notInstalled), peer("PyTorch bf16", {}, notInstalled)];
    const { rows, said } = await race([...absent, peer("other")]);
    expect(said.filter((line) => line.includes("left out"))).toEqual([
      "nano: left out: PyTorch is not set up: bench/peers/setup.sh does it",
    ]);
    expect(rows.map(({ name }) => name)).toEqual(["nano: other", "nano: Minke bf16", "nano: Minke f32"]);
    const { error } = await race(absent);
    expect(whatOf(error)).toBe("there is no peer to measure beside");
    expect((error as BaseError).fix).toBe("run bench/peers/setup.sh first");
  });
});
