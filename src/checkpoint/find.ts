/** Where the weights are: a run folder, one of its checkpoints, or a folder in Hugging Face layout. */
import { access, readdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { CheckpointError, nearestName } from "../base/index.ts";
import { readLatest } from "../run/index.ts";

/**
 * The folder that holds config.json and weights.
 *
 * @throws {CheckpointError} if there is no such folder, or no checkpoint in it, with the nearest name that exists
 */
export async function findCheckpoint(path: string): Promise<string> {
  if (path === "") {
    throw new CheckpointError("the path of the model is empty", {
      why: "nothing was given, or a shell variable that is not set",
      fix: "give a run folder, a checkpoint, or a folder in Hugging Face layout",
    });
  }
  if (await exists(join(path, "config.json"))) return path;
  if (await exists(join(path, "run.json"))) {
    const latest = await readLatest(path);
    if (latest !== null) return join(path, "checkpoints", latest);
    throw new CheckpointError(`${path} is a run without a checkpoint`, {
      why: "it was stopped before its first checkpoint was written",
      fix: "start it again; Ctrl-C writes a checkpoint before it stops",
      fields: { path },
    });
  }
  const isThere = await exists(path);
  const nearest = isThere ? undefined : nearestName(basename(path), await siblings(path));
  throw new CheckpointError(isThere ? `${path} holds neither a run nor a model` : `${path} does not exist`, {
    why: "a model is a folder with config.json and weights; a run folder has run.json and checkpoints/",
    fix:
      nearest === undefined
        ? "`minke runs list` shows the runs"
        : `did you mean ${join(dirname(path), nearest)}?`,
    fields: { path, nearest },
  });
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

async function siblings(path: string): Promise<readonly string[]> {
  return readdir(dirname(path)).catch(() => []);
}
