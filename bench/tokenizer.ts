/**
 * Speed of the tokenizer with V3's vocabulary beside Hugging Face's JavaScript one, and of the trainer.
 *
 *     npx -c "node bench/tokenizer.ts"            table and JSON lines
 *     npx -c "node bench/tokenizer.ts --json"     JSON lines only
 *
 * Ours and the peer take turns on the same texts in one process; the best round counts, because others
 * may use the machine. Each part is one call, as a document would be. "cold" is the first round, with
 * both caches empty and the code not compiled yet.
 */
import { execFileSync } from "node:child_process";
import { cpus } from "node:os";
import { readTokenizer, trainTokenizer } from "../src/text/index.ts";
import { type CorpusPart, english, makeTokenizerCorpus } from "../test/support/tokenizerCorpus.ts";
import { makePair } from "../test/support/tokenizerPeer.ts";
import { v3TokenizerConfigJson, v3TokenizerJson } from "../test/support/v3Tokenizer.ts";

interface Result {
  readonly case: string;
  readonly who: "minke" | "@huggingface/tokenizers";
  readonly bytes: number;
  readonly seconds: readonly number[];
}

const ROUNDS = 7;
/** The peer needs seconds for a megabyte, so all take turns on about this much of each kind. */
const BYTES_PER_KIND = 600_000;

const results = [...encodeResults(), loadResult(), ...(await trainResults())];
const place = {
  date: new Date().toISOString(),
  node: process.version,
  cpu: cpus()[0]?.model ?? "unknown",
  commit: execFileSync("git", ["rev-parse", "--short", "HEAD"], { encoding: "utf8" }).trim(),
};
for (const result of results)
  console.log(JSON.stringify({ bench: "tokenizer", ...summary(result), ...place }));
if (!process.argv.includes("--json")) console.log(table(results));

function encodeResults(): Result[] {
  const { ours, peer } = makePair();
  const corpus = makeTokenizerCorpus();
  const kinds = ["english", "chinese", "code", "unicode"] as const;
  return kinds.flatMap((kind) => {
    const texts = firstBytes(corpus.filter((part) => part.kind === kind));
    const bytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
    const oursSeconds: number[] = [];
    const peerSeconds: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      let difference = 0;
      oursSeconds.push(
        timed(() => {
          for (const text of texts) difference += ours.encode(text).length;
        }),
      );
      peerSeconds.push(
        timed(() => {
          for (const text of texts) difference -= peer.encode(text).ids.length;
        }),
      );
      if (difference !== 0) throw new Error(`${kind}: ours and the peer differ by ${difference} tokens`);
    }
    return [
      { case: `encode ${kind}`, who: "minke", bytes, seconds: oursSeconds },
      { case: `encode ${kind}`, who: "@huggingface/tokenizers", bytes, seconds: peerSeconds },
    ];
  });
}

function loadResult(): Result {
  const seconds = Array.from({ length: ROUNDS }, () =>
    timed(() => readTokenizer(v3TokenizerJson, v3TokenizerConfigJson)),
  );
  return { case: "load tokenizer.json", who: "minke", bytes: Buffer.byteLength(v3TokenizerJson), seconds };
}

/** Training of 4,096 ids on 10 MB, then decoding and encoding with them. */
async function trainResults(): Promise<Result[]> {
  const text = english();
  const bytes = Buffer.byteLength(text);
  const seconds: { [name: string]: number[] } = {
    "train vocab 4096": [],
    "encode vocab 4096": [],
    "decode vocab 4096": [],
  };
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now();
    const tokenizer = await trainTokenizer([text], { vocabSize: 4096 });
    seconds["train vocab 4096"]!.push((performance.now() - start) / 1000);
    let ids: Int32Array = new Int32Array(0);
    seconds["encode vocab 4096"]!.push(timed(() => (ids = tokenizer.encode(text))));
    seconds["decode vocab 4096"]!.push(timed(() => tokenizer.decode(ids)));
  }
  return Object.entries(seconds).map(([name, all]) => ({ case: name, who: "minke", bytes, seconds: all }));
}

function firstBytes(parts: readonly CorpusPart[]): string[] {
  const texts: string[] = [];
  for (let bytes = 0, at = 0; bytes < BYTES_PER_KIND && at < parts.length; at++) {
    texts.push(parts[at]!.text);
    bytes += Buffer.byteLength(parts[at]!.text);
  }
  return texts;
}

function timed(work: () => unknown): number {
  const start = performance.now();
  work();
  return (performance.now() - start) / 1000;
}

function summary({ seconds, ...result }: Result) {
  const sorted = seconds.toSorted((a, b) => a - b);
  const [min, median] = [sorted[0]!, sorted[sorted.length >> 1]!];
  const megabytesPerSecond = (time: number): number => Number((result.bytes / 1e6 / time).toFixed(2));
  return {
    ...result,
    rounds: seconds.length,
    minSeconds: min,
    medianSeconds: median,
    best: megabytesPerSecond(min),
    median: megabytesPerSecond(median),
    cold: megabytesPerSecond(seconds[0]!),
    unit: "MB/s",
  };
}

function table(all: readonly Result[]): string {
  const lines = all.map((result) => {
    const { best, median, cold, minSeconds } = summary(result);
    const numbers = [best, median, cold].map((value) => value.toFixed(2).padStart(9)).join("");
    return `${result.case.padEnd(22)}${result.who.padEnd(26)}${numbers}${minSeconds.toFixed(3).padStart(10)}`;
  });
  return ["", `${"MB/s".padEnd(48)}     best   median     cold  s (best)`, ...lines].join("\n");
}
