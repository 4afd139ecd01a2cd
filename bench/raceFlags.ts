/** What `npm run bench:shakespeare` may be told, checked before anything runs, and the line that its rows are kept under. */
import { existsSync } from "node:fs";
import { basename } from "node:path";
import { parseArgs } from "node:util";
import { listed } from "./parts.ts";

export const RACE_NAMES = ["short", "long"] as const;
export type RaceName = (typeof RACE_NAMES)[number];

export interface RaceFlags {
  readonly text: string;
  /** Runs of each race; a race that was not asked for has none. */
  readonly seeds: Readonly<Record<RaceName, number>>;
  /** Of every program that takes part; null leaves it to them, which is all. */
  readonly threads: number | null;
  /** What a reader types: with the text's name and not where it lies on this machine. */
  readonly command: string;
}

/** @throws naming the flag and what it takes */
export function parseRaceFlags(argv: readonly string[]): RaceFlags {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      text: { type: "string" },
      seeds: { type: "string", default: "5" },
      "long-seeds": { type: "string", default: "1" },
      only: { type: "string" },
      threads: { type: "string" },
    },
  });
  const { text, threads } = values;
  if (text === undefined || !existsSync(text))
    throw new Error(
      `--text ${text ?? "is missing"}: give the path of tinyshakespeare, ` +
        "github.com/karpathy/char-rnn, data/tinyshakespeare/input.txt",
    );
  const only = listed("--only", values.only, RACE_NAMES) ?? RACE_NAMES;
  const seeds = (race: RaceName, flag: "seeds" | "long-seeds"): number =>
    whole(`--${flag}`, values[flag], 100) * Number(only.includes(race));
  return {
    text,
    seeds: { short: seeds("short", "seeds"), long: seeds("long", "long-seeds") },
    threads: threads === undefined ? null : whole("--threads", threads, 1024),
    command: commandOf(argv, text),
  };
}

function whole(flag: string, text: string, most: number): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= 1 && value <= most) return value;
  throw new Error(`${flag} ${JSON.stringify(text)} is not a whole number from 1 to ${most}`);
}

function commandOf(argv: readonly string[], text: string): string {
  const words = argv.map((word) =>
    word === text ? basename(text) : word.replace(`=${text}`, `=${basename(text)}`),
  );
  return `npm run bench:shakespeare -- ${words.join(" ")}`;
}
