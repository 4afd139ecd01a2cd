/**
 * The checkpoints of one run: written aside, hashed, brought to the disk, renamed, and only then called `latest`.
 *
 * Whenever the machine stops, the newest whole checkpoint is found again. A damaged one is named and the one
 * before it is used.
 */
import { randomUUID } from "node:crypto";
import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import {
  checkpointName,
  errorCode,
  explained,
  type RunFolder,
  readLatest,
  requireFreeBytes,
  syncFolder,
  writeFileAtomic,
} from "../run/index.ts";
import { type CheckpointManifest, hashFolder, readManifestOf, verifyCheckpoint } from "./manifest.ts";

export interface Retention {
  readonly keepNewest: number;
  /** Multiples of this step are kept; 0 keeps none for that. */
  readonly keepEvery: number;
  readonly keepBest: boolean;
}

/** How folders begin that are no checkpoints yet, and none any more. */
const WRITING = ".writing-";
const REPLACED = ".replaced-";

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

  /** Removes what a crash left half written, and brings back what was to be replaced by it. */
  async clean(): Promise<void> {
    const { checkpoints } = this.#run.paths;
    const names = await this.#names();
    for (const name of names) {
      const path = join(checkpoints, name);
      const replaced = name.startsWith(REPLACED) ? name.slice(REPLACED.length) : null;
      if (replaced !== null && !names.includes(replaced)) await rename(path, join(checkpoints, replaced));
      else if (replaced !== null || name.startsWith(WRITING)) await rm(path, { recursive: true });
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
    const temporary = join(checkpoints, `${WRITING}${checkpointName(step)}-${randomUUID()}`);
    const path = join(checkpoints, checkpointName(step));
    const manifest = await explained(path, "write a checkpoint", async () => {
      try {
        await mkdir(temporary, { recursive: true });
        await fill(temporary);
        const files = await hashFolder(temporary);
        const content: CheckpointManifest = { schema: 1, step, validationLoss, files };
        await writeFileAtomic(join(temporary, "manifest.json"), `${JSON.stringify(content, null, 2)}\n`);
        await this.#putInPlace(temporary, step);
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

  /** Renames a checkpoint that is whole. One of the same step, from before a resume, stands aside until that is done. */
  async #putInPlace(temporary: string, step: number): Promise<void> {
    const { checkpoints } = this.#run.paths;
    const path = join(checkpoints, checkpointName(step));
    const aside = join(checkpoints, `${REPLACED}${checkpointName(step)}`);
    await rename(path, aside).catch((error: unknown) => {
      if (errorCode(error) !== "ENOENT") throw error;
    });
    await rename(temporary, path);
    await syncFolder(checkpoints);
    await rm(aside, { recursive: true, force: true });
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
