/** Who takes part, and the command line of each: our own steps, PyTorch in its four settings, jax-js for products. */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { BackendError } from "../../base/index.ts";
import type { ContestantSpec } from "./contestant.ts";

export interface PeerSpec extends ContestantSpec {
  readonly precision: "f32" | "bf16";
  /** What people should know while they wait for it. */
  readonly hint: string;
  /** What must exist, and the script of this folder that makes it. */
  readonly needs: { readonly file: string; readonly setup: string };
}

const folder = join(dirname(fileURLToPath(import.meta.url)), "..", "..", "..", "bench", "peers");
const python = join(folder, ".venv", "bin", "python");
const torchNeeds = { file: python, setup: "setup.sh" };

const MINUTE = 60_000;
const answerTimeoutMs = 5 * MINUTE;

/** Settings of PyTorch; the fastest of them is what we are measured against. */
const TORCH_SETTINGS = [
  { precision: "bf16", isCompiled: false },
  { precision: "f32", isCompiled: false },
  { precision: "bf16", isCompiled: true },
  { precision: "f32", isCompiled: true },
] as const;

/** PyTorch training the same model, in each of its settings. */
export function torchSpecs(preset: string, threads: number): readonly PeerSpec[] {
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
    needs: torchNeeds,
  }));
}

/** Other libraries' products of 2048 x 2048 x 1024. */
export function gemmSpecs(threads: number): readonly PeerSpec[] {
  const torch = (["bf16", "f32"] as const).map((precision) => ({
    name: `PyTorch ${precision}`,
    precision,
    hint: "it starts and warms up",
    command: python,
    args: [join(folder, "gemm.py"), "--serve", "--precision", precision, "--threads", String(threads)],
    readyTimeoutMs: 5 * MINUTE,
    answerTimeoutMs,
    needs: torchNeeds,
  }));
  const jax: PeerSpec = {
    name: "jax-js f32 (WebAssembly)",
    precision: "f32",
    hint: "it starts and warms up",
    command: process.execPath,
    args: [join(folder, "jax_js_gemm.mjs")],
    readyTimeoutMs: 5 * MINUTE,
    answerTimeoutMs,
    needs: { file: join(folder, ".js", "node_modules", "@jax-js", "jax"), setup: "setup_js.sh" },
  };
  return [...torch, jax];
}

/** Our own steps in a process of their own, by the same program as this one. */
export function minkeSpec(preset: string, precision: "f32" | "bf16", threads: number): ContestantSpec {
  const settings = ["--preset", preset, "--precision", precision, "--threads", String(threads)];
  return {
    name: `Minke ${precision}`,
    command: process.execPath,
    args: [...process.execArgv, process.argv[1] ?? "", "bench", "serve", ...settings],
    readyTimeoutMs: 5 * MINUTE,
    answerTimeoutMs,
  };
}

export function isSetUp({ needs }: PeerSpec): boolean {
  return existsSync(needs.file);
}

export function notSetUp({ name, needs }: PeerSpec): BackendError {
  return new BackendError(`${name} is not set up`, {
    why: `${needs.file} does not exist; peers live in environments of their own, in a clone`,
    fix: `run bench/peers/${needs.setup} first`,
    fields: { name, file: needs.file },
  });
}
