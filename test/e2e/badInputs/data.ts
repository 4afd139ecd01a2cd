/** Training data as it should not be. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { BadInput, Place } from "../../support/badInput.ts";
import { integers } from "../../support/random.ts";

const trainOn = (path: string, ...more: string[]): string[] => [
  ...["train", "--preset", "unit", "--data", path, "--run", "new", "--steps", "2"],
  ...more,
];

/** The data is one file with this content. */
const file =
  (name: string, content: string | Uint8Array) =>
  async ({ folder }: Place): Promise<string[]> => {
    await writeFile(join(folder, name), content);
    return trainOn(name);
  };

export const badData: readonly BadInput[] = [
  {
    name: "a file that does not exist",
    make: () => trainOn("texd.txt"),
    says: /did you mean \S*\/text\.txt\?/,
  },
  { name: "an empty file", make: file("empty.txt", ""), says: /empty\.txt holds? no text/ },
  {
    name: "a binary file",
    make: file("noise.txt", Uint8Array.from(integers(4000, 256, 1))),
    says: /noise\.txt is no text: byte \d+/,
  },
  {
    name: "text that is not UTF-8",
    make: file("latin.txt", Buffer.from("déjà vu", "latin1")),
    says: /latin\.txt is no text: byte 2\n/,
  },
  { name: "a corpus of one token", make: file("one.txt", "a"), says: /vocabulary of 512 ids is larger/ },
  {
    name: "a corpus of one token with a tokenizer that needs none",
    make: async (place) => [...(await file("one.txt", "a")(place)), "--set", "data.tokenizer=bytes"],
    says: /tokens to train on do not fill one row of 33/,
  },
  {
    name: "a vocabulary larger than the data allows",
    make: () => trainOn("text.txt", "--set", "model.vocabSize=60000"),
    says: /vocabulary of 60000 ids is larger than the documents allow[\s\S]*--set model\.vocabSize=\d+ or less/,
  },
  {
    name: "JSON lines of which one is none",
    make: file("bad.jsonl", '{"text":"a whale"}\n{"text":\n'),
    says: /bad\.jsonl, line 2 is not JSON/,
  },
  {
    name: "JSON lines without the field text",
    make: file("fields.jsonl", '{"txt":"a whale"}\n'),
    says: /line 1 has no field "text"[\s\S]*rename the field txt/,
  },
  { name: "a file of an unknown kind", make: file("whale.png", "x"), says: /whale\.png is not of a kind/ },
  {
    name: "a Parquet file that is none",
    make: file("bad.parquet", "x"),
    says: /bad\.parquet cannot be read/,
  },
  {
    name: "a folder without texts",
    make: async ({ folder }) => {
      await mkdir(join(folder, "pictures"));
      await writeFile(join(folder, "pictures", "whale.png"), "x");
      return trainOn("pictures");
    },
    says: /pictures holds no documents\n.*1 files? w/,
  },
  {
    name: "a tokenizer that is not there",
    make: () => trainOn("text.txt", "--set", "data.tokenizer=nowhere"),
    says: /nowhere holds no tokenizer/,
  },
  {
    name: "a tokenizer that is a text",
    make: () => ["tokenizer", "encode", "--tokenizer", "text.txt", "whale"],
    says: /minke: text\.txt is not JSON/,
  },
  {
    name: "a tokenizer with more ids than the model",
    make: () => trainOn("text.txt", "--set", "data.tokenizer=bytes", "--set", "model.vocabSize=100"),
    says: /tokenizer has \d+ ids, the model 100[\s\S]*--set model\.vocabSize=/,
  },
  {
    name: "rows to be written below a file",
    make: () => ["data", "prepare", "--data", "text.txt", "--out", "text.txt/rows"],
    says: /text\.txt\/rows/,
  },
  {
    name: "a tokenizer to be written below a file",
    make: () => ["tokenizer", "train", "--data", "text.txt", "--vocab-size", "300", "--out", "text.txt/bpe"],
    says: /text\.txt\/bpe/,
  },
  {
    name: "a vocabulary too large for its documents",
    make: () => ["tokenizer", "train", "--data", "text.txt", "--vocab-size", "50000", "--out", "bpe"],
    says: /larger than the documents allow[\s\S]*--vocab-size \d+ or less/,
  },
  {
    name: "another tokenizer for a run",
    make: async ({ copyRun }) => [
      ...["tokenizer", "train", "--data", "text.txt", "--vocab-size", "300"],
      ...["--out", await copyRun()],
    ],
    says: /--out run already holds run\.json/,
  },
  {
    name: "rows where others lie",
    make: async ({ copyRun }) => [
      "data",
      "prepare",
      "--data",
      "text.txt",
      "--out",
      `${await copyRun()}/data`,
    ],
    says: /--out run\/data already holds index\.json/,
  },
  {
    name: "rows longer than any context",
    make: () => ["data", "prepare", "--data", "text.txt", "--out", "rows", "--row-length", "99999999"],
    says: /--row-length "99999999" is not a whole number from 1 to 1048576/,
  },
  {
    name: "rows of documents that hold no text",
    make: async ({ folder }) => {
      await writeFile(join(folder, "empty.txt"), "");
      return ["data", "prepare", "--data", "empty.txt", "--out", "new/rows"];
    },
    says: /empty\.txt holds no text/,
  },
  {
    name: "prepared rows that were damaged",
    make: async ({ folder, copyRun }) => {
      const run = await copyRun();
      await writeFile(join(folder, run, "data", "train.bin"), "MINKEROW");
      return ["train", "--run", run, "--resume"];
    },
    says: /train\.bin is no token shard[\s\S]*delete the run's data/,
  },
];
