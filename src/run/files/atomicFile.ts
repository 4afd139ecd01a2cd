/** Files that are either the old one or the new one, whenever the machine stops; and the room they need. */
import { randomUUID } from "node:crypto";
import { open, rename, rm, statfs } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { DiskError, formatBytes } from "../../base/index.ts";
import { errorCode, explained } from "./fileErrors.ts";

/** Writes a file under a temporary name beside it, brings it to the disk, then moves it to its name. */
export async function writeFileAtomic(path: string, data: string | Uint8Array): Promise<void> {
  const temporary = `${path}.${randomUUID()}.tmp`;
  await explained(path, "write", async () => {
    try {
      const file = await open(temporary, "wx");
      try {
        await file.writeFile(data);
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(temporary, path);
    } catch (error) {
      await rm(temporary, { force: true });
      throw error;
    }
    await syncFolder(dirname(path));
  });
}

/** Brings the names in a folder to the disk: without it a power cut can undo a rename. */
export async function syncFolder(path: string): Promise<void> {
  // Windows cannot open a folder as a file; NTFS keeps renames in its journal by itself.
  if (process.platform === "win32") return;
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** Bytes that this user may still write where the path is, or will be. */
export async function freeBytes(path: string): Promise<number> {
  const full = resolve(path);
  try {
    const { bavail, bsize } = await statfs(full);
    return bavail * bsize;
  } catch (error) {
    if (errorCode(error) !== "ENOENT" || dirname(full) === full) throw error;
    return freeBytes(dirname(full));
  }
}

/**
 * Refuses to begin what the disk cannot hold.
 *
 * @param what  what the bytes are for: `3 checkpoints of 163 MiB`
 * @throws      {DiskError} with fields `neededBytes` and `freeBytes`
 */
export async function requireFreeBytes(path: string, neededBytes: number, what: string): Promise<void> {
  const free = await freeBytes(path);
  if (free >= neededBytes) return;
  throw new DiskError(
    `${path} has ${formatBytes(free)} free, ${formatBytes(neededBytes)} are needed for ${what}`,
    {
      why: "a run that fills the disk stops in the middle; this is checked before it starts",
      fix: `free ${formatBytes(neededBytes - free)} there, choose another disk with --run DIR, or keep fewer checkpoints`,
      fields: { path, neededBytes, freeBytes: free },
    },
  );
}
