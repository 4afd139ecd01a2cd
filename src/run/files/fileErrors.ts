/** What the file system refuses, as errors of the catalogue: a full disk and a read-only folder have a cure. */
import { dirname } from "node:path";
import { DiskError, RunError } from "../../base/index.ts";

/** The `code` of an error of Node (`ENOENT`...); undefined for any other error. */
export function errorCode(error: unknown): string | undefined {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return typeof code === "string" ? code : undefined;
}

/** True of a stream's error that means: the pipe was closed, or the terminal is gone. */
export function isReaderGone(error: unknown): boolean {
  return ["EPIPE", "EIO"].includes(errorCode(error) ?? "");
}

/**
 * The error to throw for what happened to a file; what is not known is given back as it is.
 *
 * @param doing  what was tried, as the middle of a sentence: `write events`
 */
export function explainFileError(error: unknown, path: string, doing: string): unknown {
  const fields = { path, code: errorCode(error) };
  switch (fields.code) {
    case "ENOSPC":
    case "EDQUOT":
      return new DiskError(`cannot ${doing}: no space left for ${path}`, {
        why: "the disk, or your share of it, is full; what was written before is whole",
        fix: `free some space on the disk of ${dirname(path)}, then run the same command with --resume`,
        fields,
        cause: error,
      });
    case "EROFS":
    case "EACCES":
    case "EPERM":
      return new RunError(`cannot ${doing}: ${path} may not be written`, {
        why: "the folder is read-only, or belongs to somebody else",
        fix: "choose another folder, or give yourself the right to write there",
        fields,
        cause: error,
      });
    case "ENOTDIR":
    case "EEXIST":
      return new RunError(`cannot ${doing}: ${path} is in the way of a folder`, {
        why: "a file has this name or the name of a folder above it",
        fix: "choose another folder, or move the file away",
        fields,
        cause: error,
      });
    case "ENOENT":
      return new RunError(`cannot ${doing}: ${path} is not there`, {
        why: "the folder does not exist, or was moved or deleted in the meantime",
        fix: "make the folder, or give another path",
        fields,
        cause: error,
      });
    case "EISDIR":
      return new RunError(`cannot ${doing}: ${path} is a folder`, {
        why: "a file is to be written there",
        fix: "give the path of a file",
        fields,
        cause: error,
      });
    default:
      return error;
  }
}

/** Runs the task and explains what the file system refuses. */
export async function explained<T>(path: string, doing: string, task: () => Promise<T>): Promise<T> {
  try {
    return await task();
  } catch (error) {
    throw explainFileError(error, path, doing);
  }
}
