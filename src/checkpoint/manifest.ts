/** What a checkpoint says of its own files, and whether that is still true. */
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { CheckpointError } from "../base/index.ts";
import { hashFile } from "./hash.ts";

/** manifest.json of a checkpoint. */
export interface CheckpointManifest {
  readonly schema: 1;
  readonly step: number;
  readonly validationLoss: number | null;
  /** sha256 of every other file of the folder, in hex. */
  readonly files: Readonly<Record<string, { readonly bytes: number; readonly sha256: string }>>;
}

const manifestSchema: z.ZodType<CheckpointManifest> = z.object({
  schema: z.literal(1),
  step: z.int().nonnegative(),
  validationLoss: z.number().nullable(),
  files: z.record(z.string(), z.object({ bytes: z.int().nonnegative(), sha256: z.string() })),
});

/** Sizes and hashes of all files of a folder. */
export async function hashFolder(folder: string): Promise<CheckpointManifest["files"]> {
  const files: Record<string, { bytes: number; sha256: string }> = {};
  for (const name of (await readdir(folder)).sort()) {
    const path = join(folder, name);
    files[name] = { bytes: (await stat(path)).size, sha256: await hashFile(path) };
  }
  return files;
}

/** Null if it is missing or damaged. */
export async function readManifestOf(path: string): Promise<CheckpointManifest | null> {
  try {
    const text = await readFile(join(path, "manifest.json"), "utf8");
    return manifestSchema.safeParse(JSON.parse(text)).data ?? null;
  } catch {
    // Missing or damaged: whoever needs the reason asks verifyCheckpoint.
    return null;
  }
}

/** Checks every file of a checkpoint against its manifest. `reason` is null if all of them are as they were written. */
export async function verifyCheckpoint(
  path: string,
): Promise<{ readonly reason: string | null; readonly bytes: number }> {
  const manifest = await readManifestOf(path);
  if (manifest === null) return { reason: "manifest.json is missing or damaged", bytes: 0 };
  let total = 0;
  for (const [name, { bytes, sha256 }] of Object.entries(manifest.files)) {
    const file = join(path, name);
    const size = await stat(file).then(
      (found) => found.size,
      () => null,
    );
    if (size === null) return { reason: `${name} is missing`, bytes: 0 };
    if (size !== bytes) return { reason: `${name} has ${size} bytes, ${bytes} were written`, bytes: 0 };
    if ((await hashFile(file)) !== sha256)
      return { reason: `${name} is not what was written (sha256 differs)`, bytes: 0 };
    total += bytes;
  }
  return { reason: null, bytes: total };
}

/** @throws {CheckpointError} if the checkpoint is damaged; folders without a manifest are not ours and not checked */
export async function requireWhole(path: string): Promise<void> {
  if (!(await readdir(path)).includes("manifest.json")) return;
  const { reason } = await verifyCheckpoint(path);
  if (reason === null) return;
  throw new CheckpointError(`${path} is damaged: ${reason}`, {
    why: "its files are not those that were hashed when the checkpoint was written",
    fix: "use another checkpoint of the run; `minke train --resume` finds the newest whole one by itself",
    fields: { path, reason },
  });
}
