/** Keeps what ranks have recorded, a file for each, where `minke trace` finds it. */
import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type RankSpans, rankTraceName, writeRankTrace } from "../parallel/index.ts";
import { explained } from "../run/index.ts";

export function keepTrace(folder: string, ranks: readonly RankSpans[]): Promise<void> {
  return explained(folder, "write the trace", async () => {
    await mkdir(folder, { recursive: true });
    // An earlier recording of more ranks has clocks of its own.
    for (const name of await readdir(folder)) if (/^rank-\d+\.json$/.test(name)) await rm(join(folder, name));
    for (const spans of ranks)
      await writeFile(join(folder, rankTraceName(spans.rank)), writeRankTrace(spans));
  });
}
