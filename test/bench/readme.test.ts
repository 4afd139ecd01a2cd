/** The README's tables are made from rows; these rows have figures that are easy to check by eye. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { planParts } from "../../bench/parts.ts";
import { tableOf, withTables } from "../../bench/readme.ts";
import type { Place, ResultRow } from "../../bench/results.ts";

const place: Place = {
  date: "2026-11-22T03:04:05.678Z",
  commit: "abc1234",
  cpu: "Some Processor",
  numCores: 2,
  memoryBytes: 2 ** 34,
  platform: "linux x64",
  node: "v24.0.0",
};

const row = (figures: Record<string, unknown>): ResultRow => ({ bench: "peers", preset: "nano", ...figures });
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
});
const failed = row({ name: "nano: PyTorch f32 compiled", failed: "PyTorch f32 compiled ended" });

describe("tableOf", () => {
  test("puts ours first, then peers from the fastest on, then those that failed, with command, place and version", () => {
    const table = tableOf("peers", [failed, slow, fast, ours], ["npx minke bench peers"], place, "en");
    expect(table?.split("\n")).toEqual([
      "| model | who | tokens/s | of the peak | peak memory | Minke bf16 is | Minke f32 is |",
      "|---|---|---|---|---|---|---|",
      "| nano | Minke bf16 | 4,034 | 12.5 % | 0.55 GB |  |  |",
      "| nano | PyTorch bf16 autocast compiled | 2,690 |  |  | 1.50x | 0.90x |",
      "| nano | PyTorch f32 eager | 1,950 |  |  |  |  |",
      "| nano | PyTorch f32 compiled | failed |  |  |  |  |",
      "",
      "`npx minke bench peers` (2026-11-22, Some Processor, 2 cores, Node v24.0.0, abc1234, PyTorch 2.15.0)",
    ]);
  });

  test("joins both precisions of a product in one row", () => {
    const kernel = (precision: string, gflops: number, share: number): ResultRow => ({
      bench: "kernels",
      name: "2048 x 2048 x 1024",
      precision,
      gflops,
      share,
    });
    const table = tableOf(
      "kernels",
      [kernel("bf16", 1200, 0.9), kernel("f32", 250, 0.8)],
      ["a", "b"],
      place,
      "zh",
    );
    expect(table).toContain("| 2048 x 2048 x 1024 | 1,200 | 90.0 % | 250 | 80.0 % |");
    expect(table).toContain("`a`，其余各行类推");
  });

  test("puts both tokenizers of a case in one row, and leaves out whom a case does not have", () => {
    const rows = [
      { bench: "tokenizer", case: "encode english", who: "minke", best: 12.34 },
      { bench: "tokenizer", case: "encode english", who: "@huggingface/tokenizers", best: 1 },
      { bench: "tokenizer", case: "train vocab 4096", who: "minke", best: 3 },
    ];
    const table = tableOf("tokenizer", rows, ["t"], place, "en");
    expect(table).toContain("| encode english | 12.34 | 1.00 |\n| train vocab 4096 | 3.00 |  |");
  });

  test("of a part that was not measured there is none", () => {
    expect(tableOf("gemm", [ours], ["g"], place, "en")).toBeNull();
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

describe("the two READMEs", () => {
  test("have a place for every table", () => {
    const root = join(import.meta.dirname, "..", "..");
    const parts = new Set(planParts(root).map(({ name }) => name));
    for (const file of ["README.md", "README.zh-CN.md"]) {
      const text = readFileSync(join(root, file), "utf8");
      expect(() => withTables(text, new Map([...parts].map((name) => [name, "table"])))).not.toThrow();
    }
  });
});
