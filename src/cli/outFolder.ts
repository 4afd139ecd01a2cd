/** The folder that a command writes its result to: looked at before the work, and not left behind half empty. */
import { existsSync } from "node:fs";
import { access, constants, mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { UsageError } from "../base/index.ts";
import { explained } from "../run/index.ts";

export interface OutFolder {
  /** What it is for, as the middle of a sentence: `write token rows`. */
  readonly doing: string;
  /** Names that mean: the folder belongs to something that the result would spoil. */
  readonly keepsOff: readonly string[];
}

/**
 * Makes the folder and runs the task. A folder that was made for a task that failed is removed again.
 *
 * @throws {UsageError} if it holds one of the names; {RunError} if it cannot be made or written
 */
export async function intoFolder<T>(
  path: string,
  { doing, keepsOff }: OutFolder,
  task: () => Promise<T>,
): Promise<T> {
  const found = keepsOff.find((name) => existsSync(join(path, name)));
  if (found !== undefined) {
    throw new UsageError(`--out ${path} already holds ${found}`, {
      why: "it belongs to what was written there before, which this would spoil",
      fix: "choose another folder, or delete this one first",
      fields: { path, found },
    });
  }
  const made = await explained(path, doing, async () => {
    const first = await mkdir(path, { recursive: true });
    await access(path, constants.W_OK);
    return first;
  });
  try {
    return await explained(path, doing, task);
  } catch (error) {
    if (made !== undefined) await rm(made, { recursive: true, force: true });
    throw error;
  }
}
