/** One rank's spans as the text of a file, and back. */
import { z } from "zod";
import { DataError } from "../../base/index.ts";
import type { RankSpans } from "./spans.ts";

const schema = 1;

const count: z.ZodNumber = z.int().nonnegative();
const chunk = z.strictObject({
  pass: z.enum(["forward", "backward", "backwardInput", "backwardWeight"]),
  stage: count,
  module: z.literal([0, 1]),
  direction: z.literal([0, 1]),
  microBatch: count,
});

const fileSchema = z.strictObject({
  schema: z.literal(schema),
  rank: count,
  spans: z.array(
    z.strictObject({
      name: z.string(),
      category: z.enum(["compute", "communication", "wait"]),
      start: z.number(),
      end: z.number(),
      chunks: z.array(chunk).exactOptional(),
      awaits: z
        .array(z.strictObject({ from: count, tag: count, index: count, at: z.number() }))
        .exactOptional(),
    }),
  ),
  sends: z.array(z.strictObject({ to: count, tag: count, bytes: count, at: z.number() })).exactOptional(),
  pipeline: z
    .strictObject({
      schedule: z.enum(["1f1b", "zb", "dualpipe", "dualpipev"]),
      ranks: count.positive(),
      microBatches: count.positive(),
    })
    .exactOptional(),
  link: z.strictObject({ latencySeconds: z.number(), bytesPerSecond: z.number() }).exactOptional(),
});

/** As a run keeps it below `trace/`. */
export function rankTraceName(rank: number): string {
  return `rank-${rank}.json`;
}

export function writeRankTrace(spans: RankSpans): string {
  return JSON.stringify({ schema, ...spans });
}

/**
 * @param where  the file, as its reader knows it
 * @throws {DataError} if it is no trace of a rank
 */
export function readRankTrace(text: string, where: string): RankSpans {
  const found = fileSchema.safeParse(parsed(text));
  if (found.success) {
    const { schema: _, ...spans } = found.data;
    return spans;
  }
  const [issue] = found.error.issues;
  throw new DataError(`${where} is no trace of a rank`, {
    why: `${issue!.path.join(".") || "the whole"}: ${issue!.message}`,
    fix: "record the trace again; a file that was cut off or is of another version cannot be read",
    fields: { where, path: issue!.path.map(String) },
  });
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
