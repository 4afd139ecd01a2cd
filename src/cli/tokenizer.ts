/** `minke tokenizer`: trains a byte-level BPE tokenizer, and turns text into ids and back. */
import { join } from "node:path";
import { text as readStream } from "node:stream/consumers";
import { Command } from "commander";
import { loadTokenizer } from "../api/index.ts";
import { TokenizerError, UsageError } from "../base/index.ts";
import { writeFileAtomic } from "../run/index.ts";
import {
  byteTokenizer,
  type Tokenizer,
  trainTokenizer,
  writeTokenizerConfig,
  writeTokenizerJson,
} from "../text/index.ts";
import { findDocumentFiles, readDocuments } from "../train/index.ts";
import { listOption, numberOption } from "./options.ts";
import { intoFolder } from "./outFolder.ts";

/** A run and a model have the tokenizer that they were trained with; ids of another would mean other texts. */
const NOT_INTO = ["run.json", "config.json"];

export function tokenizerCommand(): Command {
  const tokenizer = new Command("tokenizer").description("train a tokenizer; encode and decode text");
  tokenizer
    .command("train")
    .description("learn a vocabulary from text and write tokenizer.json")
    .requiredOption("--data <path>", "text file, folder, .jsonl or .parquet; may be repeated", listOption)
    .requiredOption("--out <dir>", "folder for tokenizer.json and tokenizer_config.json")
    .option(
      "--vocab-size <n>",
      "ids, special tokens and bytes included",
      numberOption("--vocab-size", 264, true),
      4096,
    )
    .option("--json", "print one JSON object")
    .addHelpText(
      "after",
      "\nExample:\n  minke tokenizer train --data texts/ --vocab-size 8192 --out tokenizer/\n",
    )
    .action(async (flags: { data: readonly string[]; out: string; vocabSize: number; json?: boolean }) => {
      const started = performance.now();
      const { files } = await findDocumentFiles(flags.data);
      const made = await intoFolder(
        flags.out,
        { doing: "write a tokenizer", keepsOff: NOT_INTO },
        async () => {
          const learnt = await learn(files, flags.vocabSize);
          await writeFileAtomic(join(flags.out, "tokenizer.json"), writeTokenizerJson(learnt));
          await writeFileAtomic(join(flags.out, "tokenizer_config.json"), writeTokenizerConfig(learnt));
          return learnt;
        },
      );
      const seconds = (performance.now() - started) / 1000;
      const result = { path: join(flags.out, "tokenizer.json"), vocabSize: made.vocabSize, seconds };
      process.stdout.write(
        flags.json === true
          ? `${JSON.stringify(result)}\n`
          : `${result.path}: ${made.vocabSize} ids from ${files.length} files in ${seconds.toFixed(1)} s\n`,
      );
    });
  tokenizer
    .command("encode")
    .description("text to ids; reads standard input if no text is given")
    .argument("[text]", "the text")
    .option("--tokenizer <path>", "tokenizer.json, or a folder with one; bytes if not given")
    .option("--special", "texts of special tokens become those tokens")
    .option("--json", "print a JSON array")
    .addHelpText(
      "after",
      "\nExample:\n  minke tokenizer encode --tokenizer runs/2026-11-21-nano-1 'My fellow citizens'\n",
    )
    .action(
      async (text: string | undefined, flags: { tokenizer?: string; special?: boolean; json?: boolean }) => {
        const chosen = await choose(flags.tokenizer);
        const ids = Array.from(
          chosen.encode(text ?? (await readStream(process.stdin)), { allowSpecial: flags.special === true }),
        );
        process.stdout.write(flags.json === true ? `${JSON.stringify(ids)}\n` : `${ids.join(" ")}\n`);
      },
    );
  tokenizer
    .command("decode")
    .description("ids to text; reads standard input if no ids are given")
    .argument("[ids...]", "token ids")
    .option("--tokenizer <path>", "tokenizer.json, or a folder with one; bytes if not given")
    .addHelpText(
      "after",
      "\nExample:\n  minke tokenizer decode --tokenizer runs/2026-11-21-nano-1 1042 318 77\n",
    )
    .action(async (given: readonly string[], flags: { tokenizer?: string }) => {
      const chosen = await choose(flags.tokenizer);
      const words =
        given.length > 0 ? given : (await readStream(process.stdin)).split(/[\s,[\]]+/).filter(Boolean);
      process.stdout.write(`${chosen.decode(words.map((word) => idOf(word)))}\n`);
    });
  return tokenizer;
}

/** @throws {TokenizerError} that says what to type where the documents are too few */
async function learn(files: readonly string[], vocabSize: number): Promise<Tokenizer> {
  try {
    return await trainTokenizer(texts(files), { vocabSize });
  } catch (error) {
    if (!(error instanceof TokenizerError)) throw error;
    const { largestVocabSize: largest } = error.fields;
    if (typeof largest !== "number") throw error;
    const fix = `use --vocab-size ${largest} or less, or give more text`;
    throw new TokenizerError(error.what, { why: error.why, fix, fields: error.fields, cause: error });
  }
}

async function* texts(files: readonly string[]): AsyncGenerator<string, void, undefined> {
  for await (const { text } of readDocuments(files)) yield text;
}

async function choose(path: string | undefined): Promise<ReturnType<typeof byteTokenizer>> {
  return path === undefined ? byteTokenizer() : loadTokenizer(path);
}

function idOf(word: string): number {
  const id = Number(word);
  if (/^\d+$/.test(word) && Number.isSafeInteger(id)) return id;
  throw new UsageError(`${JSON.stringify(word)} is no token id`, {
    why: "ids are whole numbers, zero or more",
    fix: "give ids separated by spaces, for example: minke tokenizer decode 10 11 12",
    fields: { word },
  });
}
