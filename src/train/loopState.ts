/** Where training stands, as a checkpoint stores it beside the tensors. */
import { z } from "zod";
import { CheckpointError } from "../base/index.ts";
import type { GuardState } from "./guards.ts";

/** All of it, besides the tensors. */
export interface LoopState {
  /** Steps done, skipped ones included. */
  readonly step: number;
  /** Optimizer updates done. */
  readonly updates: number;
  readonly rowsSeen: number;
  readonly tokensSeen: number;
  readonly data: { readonly epoch: number; readonly row: number };
  readonly guard: GuardState;
  /** Of the last evaluation: by it the best checkpoint is chosen. */
  readonly validationLoss: number | null;
}

const count: z.ZodNumber = z.int().nonnegative();

const loopStateSchema: z.ZodType<LoopState> = z.object({
  step: count,
  updates: count,
  rowsSeen: count,
  tokensSeen: count,
  data: z.object({ epoch: count, row: count }),
  guard: z.object({
    losses: z.array(z.number()),
    norms: z.array(z.number()),
    skippedInARow: count,
    // Checkpoints from before gradients were counted apart have no such key.
    gradientSpikesInARow: count.default(0),
  }),
  validationLoss: z.number().nullable(),
});

/** @throws {CheckpointError} if it is not what a loop stores; `path` is the file that says so */
export function parseLoopState(value: unknown, path: string): LoopState {
  const { data, error } = loopStateSchema.safeParse(value);
  if (data !== undefined) return data;
  const [issue] = error.issues;
  const key = ["loop", ...(issue?.path ?? [])].join(".");
  throw new CheckpointError(`${path}: ${key} is not what a run stores: ${issue?.message ?? "unknown"}`, {
    why: "without it the run cannot go on where it stood; another version of minke may have written it",
    fix: "resume with the version that run.json names, or use an earlier checkpoint of the run",
    fields: { path, key },
  });
}
