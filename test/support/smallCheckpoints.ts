/** Runs with small checkpoints, for tests of the store and of who reads what it has written. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { CheckpointStore, Retention } from "../../src/checkpoint/index.ts";
import { createRun, type RunFolder } from "../../src/run/index.ts";
import { scratchFolder } from "./scratchFolder.ts";

export const keepAll: Retention = { keepNewest: 100, keepEvery: 0, keepBest: false };

export async function newRun(): Promise<RunFolder> {
  return createRun(join(await scratchFolder(), "run"), { version: "0.1.0", command: [], config: {} });
}

/** Two files whose bytes tell the step. */
export const fill =
  (step: number) =>
  async (folder: string): Promise<void> => {
    await writeFile(join(folder, "config.json"), `{"step":${step}}`);
    await writeFile(join(folder, "weights.bin"), new Uint8Array(1000 + step).fill(step));
  };

export async function write(
  store: CheckpointStore,
  step: number,
  loss: number | null = null,
): Promise<readonly number[]> {
  const { removed } = await store.write(step, loss, 0, fill(step));
  return removed.map((checkpoint) => checkpoint.step);
}
