/**
 * The README's tables, made from measured rows: nobody copies a figure by hand.
 *
 * Each table stands between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`; a run of one part leaves the others alone.
 */
import { formatInteger } from "../src/base/index.ts";
import type { PartName } from "./parts.ts";
import type { Place, ResultRow } from "./results.ts";

export type Language = "en" | "zh";

interface Words {
  readonly kernels: readonly string[];
  readonly step: readonly string[];
  readonly peers: readonly string[];
  readonly gemm: readonly string[];
  readonly tokenizer: readonly string[];
  readonly failed: string;
  readonly cores: string;
  readonly others: string;
}

const words: Readonly<Record<Language, Words>> = {
  en: {
    kernels: ["product", "bf16, GFLOP/s", "of the peak", "f32, GFLOP/s", "of the peak"],
    step: ["model", "precision", "tokens/s", "GFLOP/s", "of the peak", "JavaScript's thread", "peak memory"],
    peers: ["model", "who", "tokens/s", "of the peak", "peak memory", "Minke bf16 is", "Minke f32 is"],
    gemm: ["2048 x 2048 x 1024", "GFLOP/s", "of the peak", "Minke bf16 is", "Minke f32 is"],
    tokenizer: ["V3's vocabulary", "Minke, MB/s", "@huggingface/tokenizers, MB/s"],
    failed: "failed",
    cores: "cores",
    others: ", and the like for the other rows",
  },
  zh: {
    kernels: ["矩阵乘", "bf16，GFLOP/s", "占峰值", "f32，GFLOP/s", "占峰值"],
    step: ["模型", "精度", "token/s", "GFLOP/s", "占峰值", "JavaScript 线程", "内存峰值"],
    peers: ["模型", "程序", "token/s", "占峰值", "内存峰值", "Minke bf16 是其", "Minke f32 是其"],
    gemm: ["2048 x 2048 x 1024", "GFLOP/s", "占峰值", "Minke bf16 是其", "Minke f32 是其"],
    tokenizer: ["V3 词表", "Minke，MB/s", "@huggingface/tokenizers，MB/s"],
    failed: "失败",
    cores: "核",
    others: "，其余各行类推",
  },
};

/** A part's table in Markdown with the commands that made it under it; null if nothing of it was measured. */
export function tableOf(
  part: PartName,
  rows: readonly ResultRow[],
  commands: readonly string[],
  place: Place,
  language: Language,
): string | null {
  const mine = rows.filter(({ bench }) => bench === part);
  if (mine.length === 0) return null;
  const lines = {
    kernels: kernelLines,
    step: stepLines,
    peers: peerLines,
    gemm: gemmLines,
    tokenizer: tokenizerLines,
  };
  const { cores, others } = words[language];
  const where = `${place.date.slice(0, 10)}, ${place.cpu}, ${place.numCores} ${cores}, Node ${place.node}, ${place.commit}`;
  return [
    markdownTable(words[language][part], lines[part](mine, words[language])),
    "",
    `\`${commands[0]}\`${commands.length > 1 ? others : ""} (${where}${peerVersion(mine)})`,
  ].join("\n");
}

/** @throws if the markers of a table that was measured are not there: a figure must not get lost in silence */
export function withTables(readme: string, tables: ReadonlyMap<PartName, string>): string {
  let text = readme;
  for (const [part, table] of tables) {
    const [open, close] = [`<!-- bench:${part} -->`, `<!-- /bench:${part} -->`];
    const [begin, end] = [text.indexOf(open), text.indexOf(close)];
    if (begin < 0 || end < begin) throw new Error(`the README has no ${open} with ${close} after it`);
    text = `${text.slice(0, begin + open.length)}\n${table}\n${text.slice(end)}`;
  }
  return text;
}

function kernelLines(rows: readonly ResultRow[]): string[][] {
  const names = [...new Set(rows.map(({ name }) => String(name)))];
  const find = (name: string, precision: string) =>
    rows.findLast((row) => row["name"] === name && row["precision"] === precision);
  return names.map((name) => [
    name,
    ...["bf16", "f32"].flatMap((precision) => {
      const row = find(name, precision);
      return [whole(row?.["gflops"]), percent(row?.["share"])];
    }),
  ]);
}

function stepLines(rows: readonly ResultRow[]): string[][] {
  return rows.map((row) => [
    String(row["preset"]),
    String(row["precision"]),
    whole(row["tokensPerSecond"]),
    whole(row["gflops"]),
    percent(row["share"]),
    percent(row["javascriptShare"]),
    gigabytes(row["peakRssBytes"]),
  ]);
}

/** Ours first, then the peers from the fastest on. */
function peerLines(rows: readonly ResultRow[], { failed }: Words): string[][] {
  return inOrder(rows).map((row) =>
    row["failed"] === undefined
      ? [
          String(row["preset"]),
          shortName(row),
          whole(row["tokensPerSecond"]),
          percent(row["share"]),
          gigabytes(row["peakRssBytes"]),
          times(row["minkeBf16Ratio"]),
          times(row["minkeF32Ratio"]),
        ]
      : [String(row["preset"]), shortName(row), failed, "", "", "", ""],
  );
}

function gemmLines(rows: readonly ResultRow[], { failed }: Words): string[][] {
  return inOrder(rows).map((row) =>
    row["failed"] === undefined
      ? [
          shortName(row),
          whole(row["gflops"]),
          percent(row["share"]),
          times(row["minkeBf16Ratio"]),
          times(row["minkeF32Ratio"]),
        ]
      : [shortName(row), failed, "", "", ""],
  );
}

function tokenizerLines(rows: readonly ResultRow[]): string[][] {
  const cases = [...new Set(rows.map((row) => String(row["case"])))];
  const speed = (name: string, who: string): string => {
    const best = rows.findLast((row) => row["case"] === name && row["who"] === who)?.["best"];
    return typeof best === "number" ? best.toFixed(2) : "";
  };
  return cases.map((name) => [name, speed(name, "minke"), speed(name, "@huggingface/tokenizers")]);
}

function inOrder(rows: readonly ResultRow[]): readonly ResultRow[] {
  const presets = [...new Set(rows.map(({ preset }) => preset))];
  const speed = (row: ResultRow): number => Number(row["gflops"] ?? 0);
  return presets.flatMap((preset) =>
    rows
      .filter((row) => row["preset"] === preset)
      .toSorted((a, b) => Number(b["who"] === "Minke") - Number(a["who"] === "Minke") || speed(b) - speed(a)),
  );
}

function shortName({ name, preset }: ResultRow): string {
  return String(name).replace(`${preset}: `, "");
}

function peerVersion(rows: readonly ResultRow[]): string {
  const versions = rows.flatMap(({ who, version }) =>
    typeof version === "string" && who !== "Minke" ? [`${who} ${version}`] : [],
  );
  return versions.length === 0 ? "" : `, ${[...new Set(versions)].join(", ")}`;
}

function markdownTable(header: readonly string[], lines: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  return [line(header), `|${header.map(() => "---").join("|")}|`, ...lines.map(line)].join("\n");
}

function whole(value: unknown): string {
  return typeof value === "number" ? formatInteger(value) : "";
}

function percent(value: unknown): string {
  return typeof value === "number" ? `${(value * 100).toFixed(1)} %` : "";
}

function times(value: unknown): string {
  return typeof value === "number" ? `${value.toFixed(2)}x` : "";
}

function gigabytes(value: unknown): string {
  return typeof value === "number" ? `${(value / 1e9).toFixed(2)} GB` : "";
}
