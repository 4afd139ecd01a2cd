/**
 * `npm run bench`: measures everything that the README shows and writes its tables.
 *
 *     npm run bench                           kernels, step, peers, gemm, tokenizer
 *     npm run bench -- --only step,peers      some of them; the other tables stay
 *     npm run bench -- --keep-readme          writes bench/results/ only
 *
 * Each part is a process of its own, one after another; rows go to bench/results/ as they come. A peer that is not
 * set up is left out with a line that says so.
 */
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { type Part, type PartName, planParts } from "./parts.ts";
import { type Language, tableOf, withTables } from "./readme.ts";
import { appendRow, describePlace, type ResultRow, resultFile } from "./results.ts";

const root = dirname(import.meta.dirname);
const { values: flags } = parseArgs({
  options: { only: { type: "string" }, "keep-readme": { type: "boolean", default: false } },
});
process.exitCode = await main();

async function main(): Promise<number> {
  const parts = chosen(planParts(root), flags.only);
  const place = describePlace(root);
  const file = resultFile(root, place);
  const rows: ResultRow[] = [];
  const failures: string[] = [];
  for (const part of parts) {
    if (part.missing !== null) {
      console.log(`left out: ${part.command}: ${part.missing}`);
      continue;
    }
    const started = Date.now();
    console.log(`$ ${part.command}`);
    const code = await runPart(part, (row) => {
      rows.push(row);
      appendRow(file, part.command, row, place);
      console.log(`  ${lineOf(row)}`);
    });
    console.log(`  ${((Date.now() - started) / 1000).toFixed(0)} s`);
    if (code === 130) return 130;
    if (code !== 0) failures.push(`${part.command} ended with ${code}`);
  }
  console.log(`${rows.length} rows in ${relative(root, file)}`);
  for (const failure of failures) console.error(failure);
  if (!flags["keep-readme"]) writeReadmes(parts, rows, place);
  return failures.length === 0 ? 0 : 1;
}

function chosen(parts: readonly Part[], only: string | undefined): readonly Part[] {
  if (only === undefined) return parts;
  const names = only.split(",");
  const known = new Set<string>(parts.map(({ name }) => name));
  const unknown = names.filter((name) => !known.has(name));
  if (unknown.length > 0)
    throw new Error(`--only ${unknown.join(",")}: the parts are ${[...known].join(", ")}`);
  return parts.filter(({ name }) => names.includes(name));
}

/** Resolves with the exit code; 130 if it was interrupted. */
function runPart({ args }: Part, onRow: (row: ResultRow) => void): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { cwd: root, stdio: ["ignore", "pipe", "inherit"] });
    // The terminal sends Ctrl-C to the child as well, which ends its own children; this process waits for it.
    let isStopped = false;
    const stop = (signal: NodeJS.Signals): void => {
      isStopped = true;
      child.kill(signal);
    };
    for (const name of ["SIGINT", "SIGTERM"] as const) process.on(name, stop);
    createInterface({ input: child.stdout }).on("line", (line) => {
      if (line.startsWith("{")) onRow(JSON.parse(line) as ResultRow);
    });
    child.on("error", reject);
    child.on("close", (code) => {
      for (const name of ["SIGINT", "SIGTERM"] as const) process.off(name, stop);
      resolve(isStopped ? 130 : (code ?? 1));
    });
  });
}

function writeReadmes(
  parts: readonly Part[],
  rows: readonly ResultRow[],
  place: Parameters<typeof appendRow>[3],
): void {
  for (const [name, language] of [
    ["README.md", "en"],
    ["README.zh-CN.md", "zh"],
  ] as const) {
    const path = join(root, name);
    writeFileSync(path, withTables(readFileSync(path, "utf8"), tablesIn(language)));
    console.log(`${name}: tables written`);
  }

  function tablesIn(language: Language): ReadonlyMap<PartName, string> {
    const tables = new Map<PartName, string>();
    for (const name of new Set(parts.map((part) => part.name))) {
      const commands = parts.filter((part) => part.name === name).map(({ command }) => command);
      const table = tableOf(name, rows, commands, place, language);
      if (table !== null) tables.set(name, table);
    }
    return tables;
  }
}

function lineOf(row: ResultRow): string {
  const { name, case: kind, who, tokensPerSecond, gflops, share, best, unit, failed } = row;
  if (failed !== undefined) return `${name}: ${failed}`;
  const speed = typeof tokensPerSecond === "number" ? `${Math.round(tokensPerSecond)} tokens/s  ` : "";
  if (typeof gflops === "number") {
    return `${String(name).padEnd(44)} ${speed}${Math.round(gflops)} GFLOP/s, ${(Number(share) * 100).toFixed(1)} % of the peak`;
  }
  return `${kind} ${who}: ${best} ${unit}`;
}
