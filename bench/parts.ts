/** What `npm run bench` runs, in which order, and what a reader types to see one part of it alone. */
import { existsSync } from "node:fs";
import { join } from "node:path";

export type PartName = "kernels" | "step" | "peers" | "gemm" | "tokenizer";

export interface Part {
  readonly name: PartName;
  /** What a reader types. */
  readonly command: string;
  /** Arguments of Node. */
  readonly args: readonly string[];
  /** Why it cannot run here; null if it can. */
  readonly missing: string | null;
}

/** Models with the rounds that their steps leave time for: a round is two of our steps and one of the peer. */
const MODELS = [
  { preset: "nano", rounds: 10 },
  { preset: "micro", rounds: 10 },
  { preset: "mini", rounds: 5 },
  { preset: "dense-124m", rounds: 6 },
] as const;

const PRECISIONS = ["bf16", "f32"] as const;

/** @param root  of the clone */
export function planParts(root: string): readonly Part[] {
  const torch = setUp(join(root, "bench", "peers", ".venv", "bin", "python"), "PyTorch", "setup.sh");
  const jax = setUp(join(root, "bench", "peers", ".js", "node_modules"), "jax-js", "setup_js.sh");
  const minke = (name: PartName, words: string, missing: string | null = null): Part => ({
    name,
    command: `npx minke ${words}`,
    args: [join(root, "bin", "minke.js"), ...words.split(" "), "--json"],
    missing,
  });
  return [
    ...PRECISIONS.map((precision) => minke("kernels", `bench kernels --precision ${precision}`)),
    ...MODELS.flatMap(({ preset, rounds }) =>
      PRECISIONS.map((precision) =>
        minke("step", `bench step --preset ${preset} --precision ${precision} --rounds ${rounds}`),
      ),
    ),
    ...MODELS.map(({ preset, rounds }) =>
      minke("peers", `bench peers --preset ${preset} --rounds ${rounds}`, torch),
    ),
    minke("gemm", "bench peers --preset gemm", torch === null || jax === null ? null : torch),
    {
      name: "tokenizer",
      command: 'npx -c "node bench/tokenizer.ts"',
      args: [join(root, "bench", "tokenizer.ts"), "--json"],
      missing: null,
    },
  ];
}

function setUp(file: string, who: string, script: string): string | null {
  return existsSync(file) ? null : `${who} is not set up: bench/peers/${script} does it`;
}
