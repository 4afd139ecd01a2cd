/**
 * The README's tables, made from the rows in bench/results/ and from nothing else: nobody copies a figure by hand, and
 * a test holds the tables against the rows.
 *
 * Each table stands between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`; a run of one part leaves the others alone.
 */
import { formatInteger } from "../src/base/index.ts";
import type { PartName } from "./parts.ts";
import type { RecordedRow } from "./results.ts";

export type Language = "en" | "zh";

export const README_LANGUAGES = [
  { file: "README.md", language: "en" },
  { file: "README.zh-CN.md", language: "zh" },
] as const;

interface Words {
  readonly kernels: readonly string[];
  readonly step: readonly string[];
  readonly costs: readonly string[];
  readonly peers: readonly string[];
  readonly gemm: readonly string[];
  readonly tokenizer: readonly string[];
  readonly failed: string;
  /** What stands beside a part's time. */
  readonly flops: string;
  readonly activations: string;
  readonly busiest: string;
  readonly tokens: string;
  readonly cores: string;
  readonly others: string;
  /** The system's, a minute's mean, the measured programs included. */
  readonly load: string;
  /** Of a part without rows. */
  readonly unmeasured: string;
  /** What a reader must know to compare. */
  readonly notes: Partial<Readonly<Record<PartName, string>>>;
}

const words: Readonly<Record<Language, Words>> = {
  en: {
    kernels: ["product", "bf16, GFLOP/s", "of the peak", "f32, GFLOP/s", "of the peak"],
    step: ["model", "precision", "tokens/s", "GFLOP/s", "of the peak", "JavaScript's thread", "peak memory"],
    costs: ["part", "time, best", "time, middle", "beside it"],
    peers: ["model", "who", "tokens/s", "of the peak", "peak memory", "Minke bf16 is", "Minke f32 is"],
    gemm: ["2048 x 2048 x 1024", "GFLOP/s", "of the peak", "Minke bf16 is", "Minke f32 is"],
    tokenizer: ["V3's vocabulary", "Minke, MB/s", "@huggingface/tokenizers, MB/s"],
    failed: "failed",
    flops: "FLOPs",
    activations: "bytes of activations",
    busiest: "times an even share for the busiest expert",
    tokens: "of the tokens/s",
    cores: "cores",
    others: ", and the like for the other rows",
    load: "load",
    unmeasured: "No measurement is recorded in `bench/results/`. It is made, and this table written, by",
    notes: {
      peers:
        "Best of the rounds; in brackets the ratio of the medians. A ratio compares with ours beside that row, in turns; the rows of ours are " +
        "those beside the fastest.",
      gemm:
        "A ratio compares with ours beside that row, in turns; the rows of ours are those beside the fastest. Ours multiplies with weights that were packed beforehand, as the optimizer leaves them. PyTorch packs in every call, unless its row " +
        "says otherwise; its plain products write to one output, the others allocate theirs.",
    },
  },
  zh: {
    kernels: ["矩阵乘", "bf16，GFLOP/s", "占峰值", "f32，GFLOP/s", "占峰值"],
    step: ["模型", "精度", "token/s", "GFLOP/s", "占峰值", "JavaScript 线程", "内存峰值"],
    costs: ["部分", "耗时（最好）", "耗时（中位）", "对照"],
    peers: ["模型", "程序", "token/s", "占峰值", "内存峰值", "Minke bf16 是其", "Minke f32 是其"],
    gemm: ["2048 x 2048 x 1024", "GFLOP/s", "占峰值", "Minke bf16 是其", "Minke f32 是其"],
    tokenizer: ["V3 词表", "Minke，MB/s", "@huggingface/tokenizers，MB/s"],
    failed: "失败",
    flops: "FLOPs",
    activations: "激活字节",
    busiest: "倍于均分（最忙专家）",
    tokens: "的 token/s",
    cores: "核",
    others: "，其余各行类推",
    load: "负载",
    unmeasured: "`bench/results/` 中尚无此项测量记录。测量并生成本表的命令：",
    notes: {
      peers:
        "取各轮最好值；括号内为中位数之比。比值取自与该行轮流测量的 Minke；表中 Minke 各行是与最快者轮流测得的。",
      gemm: "比值取自与该行轮流测量的 Minke；表中 Minke 各行是与最快者轮流测得的。Minke 使用事先打包的权重（即优化器留下的形式）。除注明 weights packed 的行外，PyTorch 每次调用都重新打包；其普通乘法写入同一输出，其余各行每次分配输出。",
    },
  },
};

/** A part's table in Markdown with the commands that made it under it; a sentence that says so if nothing was measured. */
export function tableOf(part: PartName, rows: readonly RecordedRow[], language: Language): string {
  const { cores, others, load, unmeasured, notes } = words[language];
  const mine = latest(part, rows);
  if (mine.length === 0) return `${unmeasured} \`npm run bench -- --only ${part}\``;
  const lines = {
    kernels: kernelLines,
    step: stepLines,
    costs: costLines,
    peers: peerLines,
    gemm: gemmLines,
    tokenizer: tokenizerLines,
  };
  const commands = distinct(mine.map(({ command }) => command));
  const places = distinct(
    mine.map(
      ({ date, cpu, numCores, node, commit }) =>
        `${date.slice(0, 10)}, ${cpu}, ${numCores} ${cores}, Node ${node}, ${commit}`,
    ),
  );
  const loads = distinct(mine.map((row) => row.load.toFixed(1))).toSorted((a, b) => Number(a) - Number(b));
  const busy = `${load} ${distinct([loads[0], loads.at(-1)]).join("-")}`;
  const note = notes[part] === undefined ? [] : [notes[part], ""];
  return [
    markdownTable(words[language][part], lines[part](mine, words[language])),
    "",
    ...note,
    `\`${commands[0]}\`${commands.length > 1 ? others : ""} (${places.join("; ")}, ${busy}${peerVersion(mine)})`,
  ].join("\n");
}

/**
 * A part's rows of the latest run of each model and precision, all of the machine that was measured last.
 *
 * Models may come from different runs: a run of one of them does not wipe out the others. Of a run beside peers that
 * was stopped, our rows are missing, which come last: it does not count.
 */
function latest(part: PartName, rows: readonly RecordedRow[]): readonly RecordedRow[] {
  const groupOf = (row: RecordedRow): string =>
    part === "kernels" || part === "step" ? `${row["preset"]} ${row["precision"]}` : `${row["preset"]}`;
  const runOf = (row: RecordedRow): string => `${groupOf(row)} ${row.date}`;
  const all = rows.filter(({ bench }) => bench === part);
  const ended = new Set(all.filter(({ who }) => who === "Minke").map(runOf));
  const whole = part === "peers" || part === "gemm" ? all.filter((row) => ended.has(runOf(row))) : all;
  const last = whole.toSorted((a, b) => a.date.localeCompare(b.date)).at(-1);
  const here = whole.filter(({ cpu, numCores }) => cpu === last?.cpu && numCores === last.numCores);
  return distinct(here.map(groupOf)).flatMap((group) => {
    const members = here.filter((row) => groupOf(row) === group);
    const newest = members
      .map(({ date }) => date)
      .toSorted()
      .at(-1);
    return members.filter(({ date }) => date === newest);
  });
}

function distinct<T>(values: readonly T[]): readonly T[] {
  return [...new Set(values)];
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

function kernelLines(rows: readonly RecordedRow[]): string[][] {
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

function stepLines(rows: readonly RecordedRow[]): string[][] {
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

function costLines(rows: readonly RecordedRow[], { flops, activations, busiest, tokens }: Words): string[][] {
  const beside = (row: RecordedRow): string => {
    if (row["flopsShare"] !== undefined) return `${signed(row["flopsShare"])} ${flops}`;
    if (row["savedShare"] !== undefined) return `${signed(-Number(row["savedShare"]))} ${activations}`;
    if (row["busiestOverEven"] !== undefined)
      return `${Number(row["busiestOverEven"]).toFixed(2)} ${busiest}`;
    return `${percent(row["tokensShare"])} ${tokens}`;
  };
  return rows
    .filter((row) => row["timeShare"] !== undefined)
    .map((row) => [
      `${row["preset"]}: ${row["name"]}`,
      signed(row["timeShare"]),
      signed(row["medianTimeShare"]),
      beside(row),
    ]);
}

/** Ours first, then the peers from the fastest on. */
function peerLines(rows: readonly RecordedRow[], { failed }: Words): string[][] {
  return inOrder(rows).map((row) =>
    row["failed"] === undefined
      ? [
          String(row["preset"]),
          shortName(row),
          whole(row["tokensPerSecond"]),
          percent(row["share"]),
          gigabytes(row["peakRssBytes"]),
          times(row, "Bf16"),
          times(row, "F32"),
        ]
      : [String(row["preset"]), shortName(row), failed, "", "", "", ""],
  );
}

function gemmLines(rows: readonly RecordedRow[], { failed }: Words): string[][] {
  return inOrder(rows).map((row) =>
    row["failed"] === undefined
      ? [shortName(row), whole(row["gflops"]), percent(row["share"]), times(row, "Bf16"), times(row, "F32")]
      : [shortName(row), failed, "", "", ""],
  );
}

function tokenizerLines(rows: readonly RecordedRow[]): string[][] {
  const cases = [...new Set(rows.map((row) => String(row["case"])))];
  const speed = (name: string, who: string): string => {
    const best = rows.findLast((row) => row["case"] === name && row["who"] === who)?.["best"];
    return typeof best === "number" ? best.toFixed(2) : "";
  };
  return cases.map((name) => [name, speed(name, "minke"), speed(name, "@huggingface/tokenizers")]);
}

function inOrder(rows: readonly RecordedRow[]): readonly RecordedRow[] {
  const presets = [...new Set(rows.map(({ preset }) => preset))];
  const speed = (row: RecordedRow): number => Number(row["gflops"] ?? 0);
  return presets.flatMap((preset) =>
    rows
      .filter((row) => row["preset"] === preset)
      .toSorted((a, b) => Number(b["who"] === "Minke") - Number(a["who"] === "Minke") || speed(b) - speed(a)),
  );
}

function shortName({ name, preset }: RecordedRow): string {
  return String(name).replace(`${preset}: `, "");
}

function peerVersion(rows: readonly RecordedRow[]): string {
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

/** Best against best, in brackets median against median. */
function times(row: RecordedRow, precision: "Bf16" | "F32"): string {
  const [best, median] = [row[`minke${precision}Ratio`], row[`minke${precision}MedianRatio`]];
  if (typeof best !== "number") return "";
  return `${best.toFixed(2)}x${typeof median === "number" ? ` (${median.toFixed(2)}x)` : ""}`;
}

function signed(value: unknown): string {
  return `${Number(value) < 0 ? "" : "+"}${percent(value)}`;
}

function gigabytes(value: unknown): string {
  return typeof value === "number" ? `${(value / 1e9).toFixed(2)} GB` : "";
}
