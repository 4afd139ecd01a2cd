/** The same model in PyTorch, step by step in turn with ours, so that a busy machine slows both. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { OpenDevice } from "../api/index.ts";
import { BackendError } from "../base/index.ts";
import type { BenchFlags, BenchRow } from "./benchRow.ts";
import { TimedTraining } from "./benchStep.ts";

const ROUNDS = 10;

/** Settings of the peer; the fastest of them is what we are measured against. */
const PEERS = [
  { precision: "f32", mode: "eager" },
  { precision: "bf16", mode: "eager" },
  { precision: "f32", mode: "compile" },
  { precision: "bf16", mode: "compile" },
] as const;

export async function benchPeers(opened: OpenDevice, flags: BenchFlags): Promise<readonly BenchRow[]> {
  const training = new TimedTraining(opened, flags);
  await training.step();
  const rows: BenchRow[] = [];
  for (const peer of PEERS) {
    using torch = new TorchPeer(flags.preset, peer.precision, peer.mode);
    await torch.step();
    let [ours, theirs] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
    for (let round = 0; round < ROUNDS; round++) {
      ours = Math.min(ours, await training.step());
      theirs = Math.min(theirs, await torch.step());
    }
    rows.push({
      name: `${flags.preset}: minke ${flags.precision} / PyTorch ${peer.precision} ${peer.mode}`,
      minke: training.tokensPerStep / ours,
      pytorch: training.tokensPerStep / theirs,
      ratio: theirs / ours,
    });
  }
  return rows;
}

/** bench/peers/torch_v3.py, which answers every line `step N` with one line of JSON. */
class TorchPeer {
  readonly #child;
  readonly #lines: AsyncIterator<string>;

  constructor(preset: string, precision: string, mode: string) {
    const folder = join(dirname(fileURLToPath(import.meta.url)), "..", "..", "bench", "peers");
    const python = join(folder, ".venv", "bin", "python");
    if (!existsSync(python)) {
      throw new BackendError("PyTorch is not set up", {
        why: `${python} does not exist; the peer lives in an environment of its own, in a clone`,
        fix: "run bench/peers/setup.sh first (it installs PyTorch from PyPI)",
      });
    }
    const args = [
      join(folder, "torch_v3.py"),
      "--serve",
      "--preset",
      preset,
      "--precision",
      precision,
      "--mode",
      mode,
    ];
    this.#child = spawn(python, args, { stdio: ["pipe", "pipe", "ignore"] });
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  /** Seconds of one step, as the peer measured it. */
  async step(): Promise<number> {
    this.#child.stdin.write("step 1\n");
    for (;;) {
      const { value, done } = await this.#lines.next();
      if (done === true)
        throw new BackendError("PyTorch ended", {
          why: "its process stopped answering",
          fix: "run bench/peers/torch_v3.py by hand to see why",
        });
      const answer: unknown = value.startsWith("{") ? JSON.parse(value) : null;
      if (answer !== null && typeof answer === "object" && "seconds" in answer) return Number(answer.seconds);
    }
  }

  [Symbol.dispose](): void {
    this.#child.kill();
  }
}
