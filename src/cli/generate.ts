/** `minke generate`: lets a trained model continue a prompt, as it writes. */
import { Command } from "commander";
import { loadModel } from "../api/index.ts";
import { interruptible } from "./interrupt.ts";
import { choiceOption, listOption, numberOption, threadsOption } from "./options.ts";

interface Flags {
  readonly prompt: string;
  readonly maxTokens: number;
  readonly temperature: number;
  readonly topP: number;
  readonly topK: number;
  readonly seed: number;
  readonly stop?: readonly string[];
  readonly threads?: number;
  readonly backend?: "native" | "reference";
  readonly json?: boolean;
}

export function generateCommand(): Command {
  return new Command("generate")
    .description("continue a text with a trained model")
    .argument("<checkpoint-or-run>", "run folder, checkpoint, or a folder in Hugging Face layout")
    .option("--prompt <text>", "what to continue", "")
    .option("--max-tokens <n>", "longest answer in tokens", numberOption("--max-tokens", 1, true), 128)
    .option(
      "--temperature <t>",
      "0 takes the most likely token",
      numberOption("--temperature", 0, false),
      0.8,
    )
    .option(
      "--top-p <p>",
      "smallest set of tokens with this probability",
      numberOption("--top-p", 0, false, 1),
      0.95,
    )
    .option("--top-k <k>", "the k most likely tokens; 0 takes all", numberOption("--top-k", 0, true), 0)
    .option("--seed <s>", "equal seeds give equal texts", numberOption("--seed", 0, true), 0)
    .option("--stop <text>", "ends the answer; may be repeated", listOption)
    .option("--threads <n>", "threads that compute", threadsOption)
    .option("--backend <name>", "native or reference", choiceOption("--backend", ["native", "reference"]))
    .option("--json", "print one JSON object per piece, and one at the end")
    .addHelpText(
      "after",
      "\nExamples:\n  minke generate runs/2026-11-21-nano-1 --prompt 'My fellow citizens,'\n  minke generate model/ --prompt 'Once' --temperature 0 --max-tokens 64\n",
    )
    .action(async (path: string, { prompt, json = false, threads, backend, ...settings }: Flags) => {
      const options = {
        ...(threads === undefined ? {} : { threads }),
        ...(backend === undefined ? {} : { backend }),
      };
      const model = await loadModel(path, options);
      // Asked for with --backend it is no news.
      if (model.warning?.fix != null)
        process.stderr.write(`minke: ${model.warning.what}; ${model.warning.fix}\n`);
      using interrupt = interruptible("stopping");
      const write = (value: unknown): void => void process.stdout.write(`${JSON.stringify(value)}\n`);
      const started = performance.now();
      let pieces = 0;
      try {
        if (!json) process.stdout.write(prompt);
        for await (const text of model.generate(prompt, { ...settings, signal: interrupt.signal })) {
          pieces++;
          if (json) write({ type: "piece", text });
          else process.stdout.write(text);
        }
        if (json) write({ type: "done", pieces, seconds: (performance.now() - started) / 1000 });
        else process.stdout.write("\n");
      } catch (error) {
        if (!interrupt.signal.aborted) throw error;
        process.stdout.write("\n");
        process.exitCode = 130;
      } finally {
        await model.dispose();
      }
    });
}
