/**
 * A bad input and what must follow from it: one message with what, why and fix, a non-zero exit, and nothing lost.
 *
 * `nothing lost` is taken literally: every file that was there before is there afterwards with the same bytes, and a
 * command that could not begin leaves no new ones.
 */
import { createHash } from "node:crypto";
import { cp, readdir, readFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { expect } from "vitest";
import { minke, type Outcome } from "./minke.ts";

/** Where a bad input is made: a folder with `text.txt`, and a trained run to copy from. */
export interface Place {
  readonly folder: string;
  /** Copies the trained run into the folder and returns its name there: `run`. */
  copyRun(): Promise<string>;
}

export interface BadInput {
  readonly name: string;
  /** Makes it and returns the command line. */
  readonly make: (place: Place) => string[] | Promise<string[]>;
  readonly says: RegExp;
  /** Files that the command may write although it fails: the log of a run that began, an index that is made anew. */
  readonly mayWrite?: RegExp;
}

export async function expectRefused(bad: BadInput, folder: string, trained: string): Promise<void> {
  const args = await bad.make({
    folder,
    async copyRun() {
      await cp(trained, join(folder, "run"), { recursive: true });
      return "run";
    },
  });
  const before = await contents(folder);
  const outcome = await minke(args, { cwd: folder });
  expectOneError(outcome, bad.says);
  const after = await contents(folder);
  for (const files of [before, after]) {
    for (const name of files.keys()) if (bad.mayWrite?.test(name) === true) files.delete(name);
  }
  expect(Object.fromEntries(after)).toEqual(Object.fromEntries(before));
}

/** Exit code 1 and exactly one error, of three lines, on standard error. */
export function expectOneError({ stdout, stderr, code }: Outcome, says: RegExp): void {
  expect(stderr).toMatch(says);
  expect(stderr.match(/^minke: .+\n {2}why: .+\n {2}fix: .+$/gm) ?? stderr).toHaveLength(1);
  // Without native kernels a run says so, and why, before anything goes wrong.
  const told = `${stdout}${stderr}`.replace(/the reference backend computes: .*\n +why: /, "");
  expect(told.match(/why: /g)).toHaveLength(1);
  expect(`${stdout}${stderr}`).not.toMatch(/^ {4}at /m);
  expect(code).toBe(1);
}

/** sha256 of every file below a folder, by its path. */
export async function contents(folder: string): Promise<Map<string, string>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const hashed = files.sort().map(async (path): Promise<[string, string]> => {
    const sha256 = createHash("sha256").update(await readFile(path));
    return [relative(folder, path), sha256.digest("hex")];
  });
  return new Map(await Promise.all(hashed));
}
