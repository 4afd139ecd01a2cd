/**
 * The checkpoints of one run: written aside, hashed, brought to the disk, renamed, and only then called `latest`.
 *
 * Whenever the machine stops, the newest whole checkpoint is found again. A damaged one is named and the one
 * before it is used.
 */
import { randomUUID } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { CheckpointError } from "../base/index.ts";
import {
  checkpointName,
  explained,
  type RunFolder,
  readLatest,
  requireFreeBytes,
  syncFolder,
  writeFileAtomic,
} from "../run/index.ts";
import { hashFile } from "./hash.ts";

export interface Retention {
  readonly keepNewest: number;
  /** Multiples of this step are kept; 0 keeps none for that. */
  readonly keepEvery: number;
  readonly keepBest: boolean;
}

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

export interface StoredCheckpoint {
  readonly step: number;
  readonly path: string;
  readonly bytes: number;
}

export type RemovedCheckpoint = Pick<StoredCheckpoint, "step" | "path">;

export interface Damage {
  readonly step: number;
  readonly path: string;
  readonly reason: string;
}

export class CheckpointStore {
  readonly #run: RunFolder;
  readonly #retention: Retention;

  constructor(run: RunFolder, retention: Retention) {
    this.#run = run;
    this.#retention = retention;
  }

  /**
   * Refuses a run whose checkpoints the disk cannot hold, before it starts.
   *
   * @param bytesEach  of one checkpoint
   * @param steps      planned: with `keepEvery` the number of checkpoints grows with them
   */
  async requireRoom(bytesEach: number, steps: number): Promise<void> {
    const { keepNewest, keepEvery, keepBest } = this.#retention;
    const kept = keepNewest + (keepBest ? 1 : 0) + (keepEvery > 0 ? Math.floor(steps / keepEvery) : 0);
    // One more than is kept: an old one goes only when the new one is whole.
    const missing = Math.max(1, kept + 1 - (await this.#steps()).length);
    const what = missing === 1 ? "a checkpoint" : `${missing} checkpoints`;
    await requireFreeBytes(this.#run.paths.checkpoints, missing * bytesEach, what);
  }

  /** Removes what a crash left half written. */
  async clean(): Promise<void> {
    for (const name of await this.#names()) {
      if (name.startsWith(".writing-"))
        await rm(join(this.#run.paths.checkpoints, name), { recursive: true });
    }
  }

  /**
   * Writes the checkpoint of a step.
   *
   * @param fill           writes the files into an empty folder
   * @param neededBytes    checked against the free space of the disk before anything is written
   * @returns              the checkpoint, and those that the retention rule let go
   */
  async write(
    step: number,
    validationLoss: number | null,
    neededBytes: number,
    fill: (folder: string) => Promise<void>,
  ): Promise<{ readonly written: StoredCheckpoint; readonly removed: readonly RemovedCheckpoint[] }> {
    const { checkpoints } = this.#run.paths;
    await requireFreeBytes(checkpoints, neededBytes, "a checkpoint");
    const temporary = join(checkpoints, `.writing-${checkpointName(step)}-${randomUUID()}`);
    const path = join(checkpoints, checkpointName(step));
    const manifest = await explained(path, "write a checkpoint", async () => {
      try {
        await mkdir(temporary, { recursive: true });
        await fill(temporary);
        const files = await hashFolder(temporary);
        const content: CheckpointManifest = { schema: 1, step, validationLoss, files };
        await writeFileAtomic(join(temporary, "manifest.json"), `${JSON.stringify(content, null, 2)}\n`);
        // The same step again after a resume: the same bits, so the older one may go.
        await rm(path, { recursive: true, force: true });
        await rename(temporary, path);
        await syncFolder(checkpoints);
        return content;
      } catch (error) {
        await rm(temporary, { recursive: true, force: true });
        throw error;
      }
    });
    await this.#run.writeLatest(checkpointName(step));
    const bytes = Object.values(manifest.files).reduce((sum, file) => sum + file.bytes, 0);
    return { written: { step, path, bytes }, removed: await this.#prune(step) };
  }

  /** The newest whole checkpoint, and the damaged ones that were passed over on the way to it. */
  async open(): Promise<{ readonly found: StoredCheckpoint | null; readonly damaged: readonly Damage[] }> {
    const damaged: Damage[] = [];
    const steps = new Set(await this.#steps());
    // What `latest` names should be there: if it is gone, that is damage to be told. What lies beyond it was renamed
    // but never became official, and is as whole as its hashes say.
    const official = stepOf((await readLatest(this.#run.paths.root)) ?? "");
    if (official !== null) steps.add(official);
    for (const step of [...steps].sort((a, b) => b - a)) {
      const path = join(this.#run.paths.checkpoints, checkpointName(step));
      const result = await verifyCheckpoint(path);
      if (result.reason === null) return { found: { step, path, bytes: result.bytes }, damaged };
      damaged.push({ step, path, reason: result.reason });
    }
    return { found: null, damaged };
  }

  async #prune(justWritten: number): Promise<readonly RemovedCheckpoint[]> {
    // Those beyond were damaged when the run fell back behind them: left alone, and no part of the newest that are kept.
    const steps = (await this.#steps()).filter((step) => step <= justWritten);
    const kept = new Set<number>([justWritten, ...steps.slice(-this.#retention.keepNewest)]);
    const { keepEvery, keepBest } = this.#retention;
    if (keepEvery > 0) for (const step of steps) if (step % keepEvery === 0) kept.add(step);
    if (keepBest) {
      const best = await this.#best(steps);
      if (best !== null) kept.add(best);
    }
    const removed: RemovedCheckpoint[] = [];
    for (const step of steps.filter((candidate) => !kept.has(candidate))) {
      const path = join(this.#run.paths.checkpoints, checkpointName(step));
      await rm(path, { recursive: true });
      removed.push({ step, path });
    }
    return removed;
  }

  async #best(steps: readonly number[]): Promise<number | null> {
    let best: { step: number; loss: number } | null = null;
    for (const step of steps) {
      const manifest = await readManifestOf(join(this.#run.paths.checkpoints, checkpointName(step)));
      const loss = manifest?.validationLoss ?? null;
      if (loss !== null && (best === null || loss < best.loss)) best = { step, loss };
    }
    return best?.step ?? null;
  }

  async #steps(): Promise<number[]> {
    const steps = (await this.#names()).map(stepOf).filter((step) => step !== null);
    return steps.sort((a, b) => a - b);
  }

  async #names(): Promise<readonly string[]> {
    await mkdir(this.#run.paths.checkpoints, { recursive: true });
    return readdir(this.#run.paths.checkpoints);
  }
}

function stepOf(name: string): number | null {
  const match = /^step-(\d+)$/.exec(name);
  return match === null ? null : Number(match[1]);
}

async function hashFolder(folder: string): Promise<CheckpointManifest["files"]> {
  const files: Record<string, { bytes: number; sha256: string }> = {};
  for (const name of (await readdir(folder)).sort()) {
    const path = join(folder, name);
    files[name] = { bytes: (await stat(path)).size, sha256: await hashFile(path) };
  }
  return files;
}

async function readManifestOf(path: string): Promise<CheckpointManifest | null> {
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
