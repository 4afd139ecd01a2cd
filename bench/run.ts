/**
 * `npm run bench`: measures everything that the README shows and writes its tables.
 *
 *     npm run bench                           kernels, step, costs, peers, gemm, tokenizer
 *     npm run bench -- --only step,peers      some of them; the other tables stay
 *     npm run bench -- --only peers --preset nano --rounds 2      fewer models, fewer rounds: a trial
 *     npm run bench -- --keep-readme          writes bench/results/ only
 *     node bench/run.ts --tables              measures nothing, writes the tables anew from bench/results/
 *
 * Each part is a process of its own, one after another; rows go to bench/results/ as they come. A peer that is not
 * set up is left out with a line that says so.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { loadavg } from "node:os";
import { dirname, join, relative } from "node:path";
import { parseArgs } from "node:util";
import { runChild } from "./child.ts";
import { chosenParts, PART_NAMES, planParts } from "./parts.ts";
import { README_LANGUAGES, tableOf, withTables } from "./readme.ts";
import { appendRow, describePlace, type ResultRow, readRows, resultFile } from "./results.ts";

const root = dirname(import.meta.dirname);
const { values: flags } = parseArgs({
  options: {
    only: { type: "string" },
    preset: { type: "string" },
    rounds: { type: "string" },
    tables: { type: "boolean", default: false },
    "keep-readme": { type: "boolean", default: false },
  },
});
process.exitCode = await main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  return 1;
});

async function main(): Promise<number> {
  if (flags.tables) {
    writeReadmes();
    return 0;
  }
  const parts = chosenParts(planParts(root, flags.rounds), flags);
  const busy = loadavg()[0]!;
  if (busy > 1)
    console.log(`the load is ${busy.toFixed(1)}: what other programs disturb is not worth keeping`);
  const place = describePlace(root);
  const file = resultFile(root, place);
  const failures: string[] = [];
  let count = 0;
  for (const { command, args, missing } of parts) {
    if (missing !== null) {
      console.log(`left out: ${command}: ${missing}`);
      continue;
    }
    const started = Date.now();
    console.log(`$ ${command}`);
    const { code, isStopped } = await runChild(process.execPath, args, root, (line) => {
      if (!line.startsWith("{")) return;
      const row = JSON.parse(line) as ResultRow;
      count++;
      appendRow(file, command, row, place);
      console.log(`  ${lineOf(row)}`);
    });
    console.log(`  ${((Date.now() - started) / 1000).toFixed(0)} s`);
    if (isStopped || code === 130) return 130;
    if (code !== 0) failures.push(`${command} ended with ${code}`);
  }
  console.log(`${count} rows in ${relative(root, file)}`);
  for (const failure of failures) console.error(failure);
  if (!flags["keep-readme"]) writeReadmes();
  return failures.length === 0 ? 0 : 1;
}

/** All tables, from all rows that are recorded: what was not measured now stays as it was. */
function writeReadmes(): void {
  const rows = readRows(root);
  for (const { file, language } of README_LANGUAGES) {
    const path = join(root, file);
    const tables = new Map(PART_NAMES.map((part) => [part, tableOf(part, rows, language)]));
    writeFileSync(path, withTables(readFileSync(path, "utf8"), tables));
    console.log(`${file}: tables written`);
  }
}

function lineOf(row: ResultRow): string {
  const { name, case: kind, who, tokensPerSecond, gflops, share, best, unit, failed } = row;
  if (failed !== undefined) return `${name}: ${failed}`;
  if (row.bench === "ops")
    return `${name}: ${Number(row["microseconds"]).toFixed(1)} us a call in ${row["program"]}`;
  const speed = typeof tokensPerSecond === "number" ? `${Math.round(tokensPerSecond)} tokens/s  ` : "";
  if (typeof gflops === "number") {
    return `${String(name).padEnd(44)} ${speed}${Math.round(gflops)} GFLOP/s, ${(Number(share) * 100).toFixed(1)} % of the peak`;
  }
  const times = row["timeShare"] ?? row["seconds"];
  if (typeof times === "number")
    return row["timeShare"] === times
      ? `${name}: ${(times * 100).toFixed(1)} %`
      : `${name}: ${times.toFixed(3)} s`;
  return `${kind} ${who}: ${best} ${unit}`;
}
