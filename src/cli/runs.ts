/** `minke runs`: the runs below a folder, and what tells them apart. */
import { relative, resolve, sep } from "node:path";
import { Command } from "commander";
import { formatDuration, formatInteger } from "../base/index.ts";
import { type IndexedRun, openRunStore } from "../run/index.ts";

export function runsCommand(): Command {
  const runs = new Command("runs").description("list and compare runs");
  runs
    .command("list")
    .description("every run with its state and figures")
    .option("--root <dir>", "the folder of the runs", "runs")
    .option("--json", "print one JSON object per run")
    .addHelpText("after", "\nExample:\n  minke runs list --json | jq -r .folder\n")
    .action(async ({ root, json = false }: { root: string; json?: boolean }) => {
      const store = await openRunStore(root);
      const found = await store.list();
      if (found.length === 0)
        process.stderr.write(`there are no runs in ${root}; --root names another folder\n`);
      for (const run of found) {
        if (json) process.stdout.write(`${JSON.stringify(run)}\n`);
        else process.stdout.write(`${runLine(run)}\n`);
      }
      store.close();
    });
  runs
    .command("compare")
    .description("figures of runs side by side, and the settings in which they differ")
    .argument("<runs...>", "run folders: their names, or their paths")
    .option("--root <dir>", "the folder of the runs", "runs")
    .option("--json", "print one JSON object")
    .addHelpText("after", "\nExample:\n  minke runs compare 2026-11-21-nano-1 2026-11-21-nano-2\n")
    .action(async (names: string[], { root, json = false }: { root: string; json?: boolean }) => {
      const store = await openRunStore(root);
      const comparison = await store.compare(names.map((name) => nameIn(root, name)));
      store.close();
      if (json) {
        process.stdout.write(`${JSON.stringify(comparison)}\n`);
        return;
      }
      for (const run of comparison.runs) process.stdout.write(`${runLine(run)}\n`);
      for (const { key, values } of comparison.differences) {
        process.stdout.write(`  ${key}: ${values.map((value) => JSON.stringify(value)).join("  |  ")}\n`);
      }
    });
  return runs;
}

/** A path to a folder in `root`, as a shell completes it, is that folder's name; anything else stays as it is. */
function nameIn(root: string, given: string): string {
  const inside = relative(resolve(root), resolve(given));
  return inside === "" || inside.startsWith("..") || inside.includes(sep) ? given : inside;
}

function runLine(run: IndexedRun): string {
  const figures = [
    `step ${run.step} of ${run.plannedSteps}`,
    run.bitsPerByte === null ? null : `${run.bitsPerByte.toFixed(3)} bits per byte`,
    run.tokensPerSecond === null ? null : `${formatInteger(Math.round(run.tokensPerSecond))} tokens/s`,
    formatDuration(run.stepSeconds),
  ].filter((figure) => figure !== null);
  return `${run.folder.padEnd(28)} ${run.status.padEnd(11)} ${figures.join(", ")}${run.problem === null ? "" : ` (${run.problem})`}`;
}
