/** Small corpora for tests of what becomes of documents. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { scratchFolder } from "./scratchFolder.ts";

/** A file with one document a line. */
export async function jsonl(texts: readonly string[]): Promise<string> {
  const path = join(await scratchFolder(), "texts.jsonl");
  await writeFile(path, texts.map((text) => JSON.stringify({ text })).join("\n"));
  return path;
}

/** Texts of different lengths, each of which can be told from the others. */
export function corpus(count: number): string[] {
  return Array.from(
    { length: count },
    (_, i) => `Document ${i}: ${"whale song ".repeat(1 + (i % 5))}größer 🐋.`,
  );
}
