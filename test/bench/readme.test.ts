/** The README's tables are made from rows; these rows have figures that are easy to check by eye. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { PART_NAMES } from "../../bench/parts.ts";
import { README_LANGUAGES, tableOf, withTables } from "../../bench/readme.ts";
import { type RecordedRow, readRows } from "../../bench/results.ts";

const recorded = {
  load: 0.5,
  date: "2026-11-22T03:04:05.678Z",
  commit: "abc1234",
  cpu: "Some Processor",
  numCores: 2,
  memoryBytes: 2 ** 34,
  platform: "linux x64",
  node: "v24.0.0",
};

const row = (figures: Record<string, unknown>): RecordedRow => ({
  bench: "peers",
  preset: "nano",
  command: "npx minke bench peers",
  ...recorded,
  ...figures,
});
const ours = row({
  name: "nano: Minke bf16",
  who: "Minke",
  tokensPerSecond: 4034.4,
  share: 0.125,
  gflops: 900,
  peakRssBytes: 550e6,
  ratio: 1.5,
});
const slow = row({
  name: "nano: PyTorch f32 eager",
  who: "PyTorch",
  version: "2.15.0",
  load: 12,
  tokensPerSecond: 1950,
  gflops: 300,
});
const fast = row({
  name: "nano: PyTorch bf16 autocast compiled",
  who: "PyTorch",
  version: "2.15.0",
  tokensPerSecond: 2689.6,
  gflops: 600,
  minkeBf16Ratio: 1.5,
  minkeF32Ratio: 0.9,
  minkeF32MedianRatio: 0.875,
});
const failed = row({ name: "nano: PyTorch f32 compiled", failed: "PyTorch f32 compiled ended" });

describe("tableOf", () => {
  test("puts each part's cost beside what it is worth, and leaves out the steps that it was made of", () => {
    const cost = (figures: Record<string, unknown>): RecordedRow =>
      row({ bench: "costs", command: "npx minke bench costs", ...figures });
    const rows = [
      cost({ name: "MTP", timeShare: 0.21, medianTimeShare: 0.2, flopsShare: 0.25 }),
      cost({ name: "recomputation", timeShare: 0.06, medianTimeShare: 0.055, savedShare: 0.47 }),
      cost({ name: "routing", timeShare: -0.01, medianTimeShare: 0.02, busiestOverEven: 1.4 }),
      cost({ name: "experts", timeShare: 0.1, medianTimeShare: 0.1, tokensShare: 0.909 }),
      cost({ name: "step: whole", seconds: 1 }),
    ];
    expect(tableOf("costs", rows, "en").split("\n").slice(2, 7)).toEqual([
      "| nano: MTP | +21.0 % | +20.0 % | +25.0 % FLOPs |",
      "| nano: recomputation | +6.0 % | +5.5 % | -47.0 % bytes of activations |",
      "| nano: routing | -1.0 % | +2.0 % | 1.40 times an even share for the busiest expert |",
      "| nano: experts | +10.0 % | +10.0 % | 90.9 % of the tokens/s |",
      "",
    ]);
  });

  test("puts ours first, then peers from the fastest on, then those that failed, with command, place and version", () => {
    const table = tableOf("peers", [failed, slow, fast, ours], "en");
    expect(table.split("\n")).toEqual([
      "| model | who | tokens/s | of the peak | peak memory | Minke bf16 is | Minke f32 is |",
      "|---|---|---|---|---|---|---|",
      "| nano | Minke bf16 | 4,034 | 12.5 % | 0.55 GB |  |  |",
      "| nano | PyTorch bf16 autocast compiled | 2,690 |  |  | 1.50x | 0.90x (0.88x) |",
      "| nano | PyTorch f32 eager | 1,950 |  |  |  |  |",
      "| nano | PyTorch f32 compiled | failed |  |  |  |  |",
      "",
      "Best of the rounds; in brackets the ratio of the medians. A ratio compares with ours beside that row, in turns; the rows of ours are those beside the fastest.",
      "",
      "`npx minke bench peers` (2026-11-22, Some Processor, 2 cores, Node v24.0.0, abc1234, load 0.5-12.0, PyTorch 2.15.0)",
    ]);
  });

  test("joins both precisions of a product in one row", () => {
    const kernel = (precision: string, gflops: number, share: number, command: string): RecordedRow =>
      row({ bench: "kernels", name: "2048 x 2048 x 1024", precision, gflops, share, command });
    const table = tableOf("kernels", [kernel("bf16", 1200, 0.9, "a"), kernel("f32", 250, 0.8, "b")], "zh");
    expect(table).toContain("| 2048 x 2048 x 1024 | 1,200 | 90.0 % | 250 | 80.0 % |");
    expect(table).toContain("`a`，其余各行类推");
  });

  test("puts both tokenizers of a case in one row, and leaves out whom a case does not have", () => {
    const measured = (figures: Record<string, unknown>): RecordedRow =>
      row({ bench: "tokenizer", preset: undefined, ...figures });
    const rows = [
      measured({ case: "encode english", who: "minke", best: 12.34 }),
      measured({ case: "encode english", who: "@huggingface/tokenizers", best: 1 }),
      measured({ case: "train vocab 4096", who: "minke", best: 3 }),
    ];
    expect(tableOf("tokenizer", rows, "en")).toContain(
      "| encode english | 12.34 | 1.00 |\n| train vocab 4096 | 3.00 |  |",
    );
  });

  test("a part without rows says so, in a sentence and without a figure", () => {
    expect(tableOf("gemm", [ours], "en")).toBe(
      "No measurement is recorded in `bench/results/`. It is made, and this table written, by `npm run bench -- --only gemm`",
    );
  });

  test("shows the latest run of each model, on the machine measured last; one that was stopped does not count", () => {
    const later = "2026-11-23T00:00:00.000Z";
    const table = tableOf(
      "peers",
      [
        row({ ...ours, preset: "mini", name: "mini: Minke bf16", tokensPerSecond: 111 }),
        row({ ...ours, preset: "micro", name: "micro: Minke bf16", tokensPerSecond: 222, cpu: "Another" }),
        ours,
        fast,
        row({ ...ours, tokensPerSecond: 5000, date: later, commit: "def5678" }),
        row({ ...slow, tokensPerSecond: 333, date: "2026-11-24T00:00:00.000Z" }),
      ],
      "en",
    );
    expect(table.match(/^\| (mini|micro|nano) .*$/gm)).toEqual([
      "| mini | Minke bf16 | 111 | 12.5 % | 0.55 GB |  |  |",
      "| nano | Minke bf16 | 5,000 | 12.5 % | 0.55 GB |  |  |",
    ]);
    expect(table).toMatch(/\(2026-11-22, .*, abc1234; 2026-11-23, .*, def5678, load 0.5\)$/);
  });
});

describe("withTables", () => {
  const readme =
    "a\n<!-- bench:step -->\nold\n<!-- /bench:step -->\nb\n<!-- bench:gemm -->\nkept\n<!-- /bench:gemm -->\n";

  test("replaces the tables that were measured and nothing else, and twice gives the same", () => {
    const once = withTables(readme, new Map([["step", "new"]]));
    expect(once).toBe(readme.replace("old", "new"));
    expect(withTables(once, new Map([["step", "new"]]))).toBe(once);
  });

  test("refuses a README without the table's markers", () => {
    expect(() => withTables("nothing", new Map([["step", "new"]]))).toThrow("no <!-- bench:step -->");
  });
});

describe.each(README_LANGUAGES)("$file", ({ file, language }) => {
  const root = join(import.meta.dirname, "..", "..");
  const text = readFileSync(join(root, file), "utf8");

  test.each(PART_NAMES)(
    "its table of %s is made from the rows in bench/results, figure by figure",
    (part) => {
      const between = text.split(`<!-- bench:${part} -->\n`)[1]?.split(`\n<!-- /bench:${part} -->`)[0];
      expect(between, "node bench/run.ts --tables writes the tables anew").toBe(
        tableOf(part, readRows(root), language),
      );
    },
  );
});
