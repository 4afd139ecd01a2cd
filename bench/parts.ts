/** What `npm run bench` runs, in which order, and what a reader types to see one part of it alone. */
import { join } from "node:path";
import { howToSetUp, isSetUp, JAX_JS, TORCH } from "../src/cli/bench/peerSetup.ts";

export const PART_NAMES = ["kernels", "step", "costs", "peers", "gemm", "tokenizer"] as const;
export type PartName = (typeof PART_NAMES)[number];

export interface Part {
  readonly name: PartName;
  /** The model; null where there is none to choose. */
  readonly preset: string | null;
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

/**
 * @param root    of the clone
 * @param rounds  of every step and peer instead of the planned ones, for a trial
 */
export function planParts(root: string, rounds?: string): readonly Part[] {
  if (rounds !== undefined && !/^[1-9]\d*$/.test(rounds))
    throw new Error(`--rounds ${JSON.stringify(rounds)} is not a whole number of at least 1`);
  const peers = join(root, "bench", "peers");
  const torch = isSetUp(TORCH, peers) ? null : howToSetUp(TORCH);
  // A product has two peers; the one that is not there is left out by the verb.
  const gemm = isSetUp(JAX_JS, peers) ? null : torch;
  const minke = (
    name: PartName,
    preset: string | null,
    words: string,
    missing: string | null = null,
  ): Part => ({
    name,
    preset,
    command: `npx minke ${words}`,
    args: [join(root, "bin", "minke.js"), ...words.split(" "), "--json"],
    missing,
  });
  const flagsOf = (model: (typeof MODELS)[number]): string =>
    `--preset ${model.preset} --rounds ${rounds ?? model.rounds}`;
  return [
    ...PRECISIONS.map((precision) => minke("kernels", null, `bench kernels --precision ${precision}`)),
    ...MODELS.flatMap((model) =>
      PRECISIONS.map((precision) =>
        minke("step", model.preset, `bench step ${flagsOf(model)} --precision ${precision}`),
      ),
    ),
    minke("costs", "nano", `bench costs --preset nano --rounds ${rounds ?? 16}`),
    ...MODELS.map((model) => minke("peers", model.preset, `bench peers ${flagsOf(model)}`, torch)),
    // A round is half a second.
    minke("gemm", null, `bench peers --preset gemm --rounds ${rounds ?? 30}`, gemm),
    {
      name: "tokenizer",
      preset: null,
      command: 'npx -c "node bench/tokenizer.ts"',
      args: [join(root, "bench", "tokenizer.ts"), "--json"],
      missing: null,
    },
  ];
}

/**
 * The parts of some names, the models of some presets; all by default.
 *
 * @throws naming what there is
 */
export function chosenParts(
  parts: readonly Part[],
  { only, preset }: { readonly only?: string; readonly preset?: string },
): readonly Part[] {
  const names = listed("--only", only, PART_NAMES);
  const presets = listed(
    "--preset",
    preset,
    MODELS.map((model) => model.preset),
  );
  return parts.filter(
    (part) =>
      (names === null || names.includes(part.name)) &&
      (presets === null || (part.preset !== null && presets.includes(part.preset))),
  );
}

/** Null if nothing was asked for. */
export function listed(
  flag: string,
  text: string | undefined,
  known: readonly string[],
): readonly string[] | null {
  if (text === undefined) return null;
  const words = text.split(",").map((word) => word.trim());
  const unknown = words.filter((word) => !known.includes(word));
  if (unknown.length === 0) return words;
  throw new Error(`${flag} ${unknown.join(",")} is not one of ${known.join(", ")}`);
}
