/** Who takes part, and the command line of each: our own steps, PyTorch in its four settings, jax-js for products. */
import { join } from "node:path";
import type { ContestantSpec } from "./contestant.ts";
import type { Precision } from "./peerRows.ts";
import { JAX_JS, PEERS_FOLDER, type PeerSetup, TORCH } from "./peerSetup.ts";

export interface PeerSpec extends ContestantSpec {
  readonly precision: Precision;
  /** What people should know while they wait for it. */
  readonly hint: string;
  /** What must be installed; null where nothing must. */
  readonly setup: PeerSetup | null;
}

const folder = PEERS_FOLDER;
const python = join(folder, ".venv", "bin", "python");

const MINUTE = 60_000;
const answerTimeoutMs = 5 * MINUTE;

/** Settings of PyTorch; the fastest of them is what we are measured against. */
const TORCH_SETTINGS = [
  { precision: "bf16", isCompiled: false },
  { precision: "f32", isCompiled: false },
  { precision: "bf16", isCompiled: true },
  { precision: "f32", isCompiled: true },
] as const;

/**
 * PyTorch training the same model, in each of its settings.
 *
 * @param scratch  a folder for what they compile, which goes with this process
 */
export function torchSpecs(preset: string, threads: number, scratch: string): readonly PeerSpec[] {
  return TORCH_SETTINGS.map(({ precision, isCompiled }) => ({
    name: `PyTorch ${precision === "bf16" ? "bf16 autocast" : "f32"} ${isCompiled ? "compiled" : "eager"}`,
    precision,
    hint: isCompiled ? "it compiles first, which takes some minutes" : "it starts and warms up",
    command: python,
    args: [
      join(folder, "torch_v3.py"),
      "--serve",
      ...["--preset", preset, "--precision", precision, "--threads", String(threads)],
      ...(isCompiled ? ["--compile"] : []),
    ],
    readyTimeoutMs: (isCompiled ? 20 : 5) * MINUTE,
    answerTimeoutMs,
    // Kernels of its own: those that another program was stopped in the middle of writing would fail.
    environment: { TORCHINDUCTOR_CACHE_DIR: join(scratch, `${precision}${isCompiled ? "-compiled" : ""}`) },
    setup: TORCH,
  }));
}

/** Other libraries' products of 2048 x 2048 x 1024; PyTorch's also with weights packed beforehand, as ours are. */
export function gemmSpecs(threads: number): readonly PeerSpec[] {
  const torch = (["bf16", "f32"] as const).flatMap((precision) =>
    (["plain", "packed"] as const).map((weights) => ({
      name: `PyTorch ${precision}${weights === "packed" ? ", weights packed" : ""}`,
      precision,
      hint: "it starts and warms up",
      command: python,
      args: [
        ...[join(folder, "gemm.py"), "--serve", "--precision", precision],
        ...["--weights", weights, "--threads", String(threads)],
      ],
      readyTimeoutMs: 5 * MINUTE,
      answerTimeoutMs,
      setup: TORCH,
    })),
  );
  const jax: PeerSpec = {
    name: "jax-js f32 (WebAssembly)",
    precision: "f32",
    hint: "it starts and warms up",
    command: process.execPath,
    args: [join(folder, "jax_js_gemm.mjs")],
    readyTimeoutMs: 5 * MINUTE,
    answerTimeoutMs,
    setup: JAX_JS,
  };
  return [...torch, jax];
}

/** Our own steps in a process of their own, by the same program as this one. */
export function minkeSpec(preset: string, precision: Precision, threads: number): ContestantSpec {
  const settings = ["--preset", preset, "--precision", precision, "--threads", String(threads)];
  return {
    name: `Minke ${precision}`,
    command: process.execPath,
    args: [...process.execArgv, process.argv[1] ?? "", "bench", "serve", ...settings],
    readyTimeoutMs: 5 * MINUTE,
    answerTimeoutMs,
  };
}
