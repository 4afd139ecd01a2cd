/**
 * The command line: finds the verb, and says how it ended.
 *
 * Exit codes: 0 done, 1 the user can fix it, 2 our bug, 130 interrupted and resumable.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { Command, CommanderError } from "commander";
import { version } from "../api/index.ts";
import { BaseError, nearestName } from "../base/index.ts";
import { launcherOf } from "../parallel/index.ts";
import { ablateCommand } from "./ablate/ablate.ts";
import { benchCommand } from "./bench/bench.ts";
import { convertCommand } from "./convert.ts";
import { dataCommand } from "./data.ts";
import { doctorCommand } from "./doctor.ts";
import { generateCommand } from "./generate.ts";
import { inspectCommand } from "./inspect.ts";
import { planCommand } from "./plan/plan.ts";
import { quickstartCommand } from "./quickstart.ts";
import { runsCommand } from "./runs.ts";
import { guardOutput } from "./streams.ts";
import { tokenizerCommand } from "./tokenizer.ts";
import { trainCommand } from "./train.ts";

export const INTERRUPTED = 130;

const FIRST_SPEAKS_MS = 2000;

/** Builds the whole command tree; the test of the stable surface reads it. */
export function makeProgram(): Command {
  const program = new Command("minke")
    .description(
      "DeepSeek-V3 in TypeScript: trains, evaluates and runs a V3-architecture model on this machine",
    )
    .version(version)
    .showSuggestionAfterError(true)
    .helpCommand(false)
    .addHelpText(
      "after",
      "\nExamples:\n  minke quickstart\n  minke train --preset nano --data texts/ --minutes 5\n  minke generate runs/2026-11-21-nano-1 --prompt 'My fellow citizens,'\n",
    );
  const verbs = [
    trainCommand(),
    generateCommand(),
    inspectCommand(),
    convertCommand(),
    doctorCommand(),
    benchCommand(),
    ablateCommand(),
    tokenizerCommand(),
    dataCommand(),
    runsCommand(),
    planCommand(),
    quickstartCommand(),
  ];
  for (const verb of verbs) program.addCommand(verb);
  for (const command of everyCommand(program)) {
    command.exitOverride();
    command.configureOutput({ writeErr: () => undefined });
  }
  return program;
}

export async function main(args: readonly string[]): Promise<void> {
  guardOutput(process.stdout, process.stderr, tell, (code) => process.exit(code));
  try {
    if (args.length === 0) {
      makeProgram().outputHelp();
      return;
    }
    // `minke help train` is `minke train --help`.
    const words = args[0] === "help" ? [...args.slice(1), "--help"] : [...args];
    await makeProgram().parseAsync(words, { from: "user" });
  } catch (error) {
    await letFirstRankSpeak();
    process.exitCode = report(error, args);
  }
}

/**
 * What all ranks of a job refuse, a wrong flag as a rule, one of them tells: the launcher ends the others when it is
 * gone. What one rank alone has to say is only a moment late.
 */
async function letFirstRankSpeak(): Promise<void> {
  const rank = launcherOf(process.env)?.rank ?? 0;
  if (rank > 0) await sleep(FIRST_SPEAKS_MS);
}

/** Prints what went wrong and returns the exit code. */
function report(error: unknown, args: readonly string[]): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0;
    process.stderr.write(`${usageText(error, args)}\n`);
    return 1;
  }
  if (BaseError.isInstance(error)) {
    tell(error);
    return 1;
  }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  process.stderr.write(`minke: an unexpected error; please report it with these lines\n${text}\n`);
  return 2;
}

function tell({ what, why, fix }: BaseError): void {
  process.stderr.write(`minke: ${what}\n  why: ${why}\n  fix: ${fix}\n`);
}

/** Commander's message as the three lines that every error has. */
function usageText(error: CommanderError, args: readonly string[]): string {
  if (error.code === "commander.help") return missingVerb(args);
  const [first = "", ...rest] = error.message.replace(/^error: /, "").split("\n");
  const suggestion = rest.join(" ").replace(/[()]/g, "").trim();
  const given = /'([^']+)'/.exec(first)?.[1] ?? "";
  const verbs = makeProgram().commands.map((command) => command.name());
  const nearest = error.code === "commander.unknownCommand" ? nearestName(given, verbs) : undefined;
  const fix =
    suggestion !== ""
      ? suggestion
      : nearest === undefined
        ? `${commandIn(args)} --help shows what there is`
        : `minke ${nearest}`;
  return `minke: ${first}\n  why: the command line is not one that minke knows\n  fix: ${fix}`;
}

/** As much of the command line as names a command: `minke`, `minke generate`, `minke runs compare`. */
function commandIn(args: readonly string[]): string {
  const words = ["minke"];
  let command: Command | undefined = makeProgram();
  for (const word of args) {
    command = command.commands.find((child) => child.name() === word);
    if (command === undefined) break;
    words.push(word);
  }
  return words.join(" ");
}

/** A group such as `minke tokenizer` was called without the verb that it needs. */
function missingVerb([name = ""]: readonly string[]): string {
  const group = makeProgram().commands.find((command) => command.name() === name);
  const verbs = group?.commands.map((command) => command.name()) ?? [];
  return `minke: ${name} needs one of ${verbs.join(", ")}\n  why: it is a group of verbs and does nothing by itself\n  fix: minke ${name} ${verbs[0]} --help`;
}

function everyCommand(command: Command): Command[] {
  return [command, ...command.commands.flatMap(everyCommand)];
}
