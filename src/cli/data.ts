/** `minke data`: prepares training rows, and shows what documents hold. */
import { Command } from "commander";
import { loadTokenizer } from "../api/index.ts";
import { formatBytes, formatCount } from "../base/index.ts";
import { byteTokenizer } from "../text/index.ts";
import { defaultTrainConfig, findDocumentFiles, prepareData, readDocuments } from "../train/index.ts";
import { listOption, numberOption } from "./options.ts";
import { intoFolder } from "./outFolder.ts";

interface PrepareFlags {
  readonly data: readonly string[];
  readonly out: string;
  readonly tokenizer?: string;
  readonly rowLength: number;
  readonly seed: number;
  readonly json?: boolean;
}

/** Packing keeps a list for every length up to it; no released V3 has a context of more than 163,840 tokens. */
const LONGEST_ROW = 2 ** 20;

/** Rows of other documents or settings would be taken for those that are asked for. */
const NOT_INTO = ["index.json", "run.json", "config.json"];

export function dataCommand(): Command {
  const data = new Command("data").description("prepare and inspect training data");
  data
    .command("prepare")
    .description("tokenize, pack and write token rows")
    .requiredOption("--data <path>", "text file, folder, .jsonl or .parquet; may be repeated", listOption)
    .requiredOption("--out <dir>", "folder for the rows")
    .option("--tokenizer <path>", "tokenizer.json, or a folder with one; bytes if not given")
    .option("--row-length <n>", "tokens in a row", numberOption("--row-length", 1, true, LONGEST_ROW), 256)
    .option("--seed <s>", "of fill-in-the-middle and split tokens", numberOption("--seed", 0, true), 0)
    .option("--json", "print one JSON object")
    .addHelpText(
      "after",
      "\nExample:\n  minke data prepare --data texts/ --tokenizer tokenizer/ --out rows/\n",
    )
    .action(async (flags: PrepareFlags) => {
      const tokenizer =
        flags.tokenizer === undefined ? byteTokenizer() : await loadTokenizer(flags.tokenizer);
      const { files } = await findDocumentFiles(flags.data);
      const config = { ...defaultTrainConfig("nano", 1).data, paths: flags.data };
      const { out, rowLength, seed } = flags;
      const prepared = await intoFolder(out, { doing: "write token rows", keepsOff: NOT_INTO }, () =>
        prepareData(out, tokenizer, { files, config, rowLength, seed }),
      );
      await prepared.train.close();
      const { index } = prepared;
      process.stdout.write(
        flags.json === true
          ? `${JSON.stringify(index)}\n`
          : `${flags.out}: ${formatCount(index.train.tokens)} tokens in ${index.rows} rows of ${index.rowWidth}, ${(100 * index.padding).toFixed(2)} % padding; ${formatCount(index.validation.tokens)} tokens held out\n`,
      );
    });
  data
    .command("inspect")
    .description("documents, bytes, tokens and the beginning of each kind")
    .argument("<paths...>", "text files, folders, .jsonl or .parquet")
    .option("--tokenizer <path>", "tokenizer.json, or a folder with one; bytes if not given")
    .option("--json", "print one JSON object")
    .addHelpText("after", "\nExample:\n  minke data inspect texts/ --tokenizer tokenizer/\n")
    .action(async (paths: readonly string[], flags: { tokenizer?: string; json?: boolean }) => {
      const tokenizer =
        flags.tokenizer === undefined ? byteTokenizer() : await loadTokenizer(flags.tokenizer);
      const { files, skipped } = await findDocumentFiles(paths);
      const totals = { files: files.length, skipped, documents: 0, bytes: 0, tokens: 0, longest: 0 };
      let first = "";
      for await (const { text } of readDocuments(files)) {
        const tokens = (await tokenizer.encodeInSlices(text)).length;
        if (totals.documents === 0) first = text.slice(0, 200);
        totals.documents++;
        totals.bytes += Buffer.byteLength(text);
        totals.tokens += tokens;
        totals.longest = Math.max(totals.longest, tokens);
      }
      const bytesPerToken = totals.bytes / totals.tokens;
      if (flags.json === true)
        process.stdout.write(`${JSON.stringify({ ...totals, bytesPerToken, first })}\n`);
      else
        process.stdout.write(
          `${totals.documents} documents in ${totals.files} files (${skipped} of other kinds left out), ${formatBytes(totals.bytes)}\n${formatCount(totals.tokens)} tokens, ${bytesPerToken.toFixed(2)} bytes per token, longest document ${formatCount(totals.longest)} tokens\nfirst document begins: ${JSON.stringify(first)}\n`,
        );
    });
  return data;
}
