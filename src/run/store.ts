/**
 * The index across runs: an SQLite file in the folder that holds the run folders.
 *
 * The folders are the truth. The index is brought up to date whenever it is opened (only logs that changed are read
 * again), and made anew if it is missing, damaged, or of another version. Any SQLite client may read it.
 */
import { existsSync } from "node:fs";
import { readdir, rm, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { DatabaseSync, SQLInputValue } from "node:sqlite";
import { describeError, type JsonObject, RunError, type RunWarning } from "../base/index.ts";
import { errorCode, explained } from "./files/fileErrors.ts";
import { isOwned, runPaths } from "./folder/folder.ts";
import { readEvents } from "./log/eventReader.ts";
import { collectHistory } from "./log/history.ts";
import { type ConfigDifference, configDifferences } from "./runDifferences.ts";
import { type RunStatus, type RunSummary, summarize } from "./summary.ts";

const indexName = "index.sqlite";
/** Raised with every change of the table: an index of another version is thrown away and made anew. */
const indexVersion = 1;

/** A run as the index shows it; `running` and `killed` are told apart by the lock of the folder. */
export interface IndexedRun extends Omit<RunSummary, "status"> {
  /** Name of the run's folder in the runs root. */
  readonly folder: string;
  readonly status: Exclude<RunStatus, "open"> | "running" | "killed" | "damaged";
  /** Why the run could not be read; null if it could. */
  readonly problem: string | null;
}

export interface RunComparison {
  readonly runs: readonly IndexedRun[];
  /** The settings that are not equal in all of the runs. */
  readonly differences: readonly ConfigDifference[];
}

/** @param runsRoot  the folder that holds the run folders; one that does not exist holds no runs */
export async function openRunStore(runsRoot: string): Promise<RunStore> {
  const root = resolve(runsRoot);
  const warnings: RunWarning[] = [];
  return explained(root, "list the runs", async () => {
    // A file in the folder's place is named before SQLite takes it for a database that cannot be opened.
    const folders = await runFolders(root);
    // Where there is nothing to index, no file is left behind either.
    const path = folders.length > 0 || existsSync(join(root, indexName)) ? join(root, indexName) : null;
    const store = new RunStore(root, await openDatabase(path, warnings), warnings);
    await store.refresh();
    return store;
  });
}

export class RunStore {
  readonly root: string;
  /** What was mended while opening. */
  readonly warnings: readonly RunWarning[];
  readonly #database: DatabaseSync;

  constructor(root: string, database: DatabaseSync, warnings: readonly RunWarning[]) {
    this.root = root;
    this.#database = database;
    this.warnings = warnings;
  }

  /** Reads the logs that have changed, and forgets the runs whose folders are gone. */
  async refresh(): Promise<void> {
    const folders = await runFolders(this.root);
    const known = this.#database.prepare("SELECT folder, log_bytes, log_time FROM runs").all();
    const marks = new Map(
      known.map((row) => [String(row["folder"]), `${row["log_bytes"]} ${row["log_time"]}`]),
    );
    for (const folder of marks.keys()) {
      if (!folders.includes(folder)) this.#database.prepare("DELETE FROM runs WHERE folder = ?").run(folder);
    }
    for (const folder of folders) {
      const mark = await logMark(join(this.root, folder));
      if (marks.get(folder) !== `${mark.bytes} ${mark.time}`) await this.#index(folder, mark);
    }
  }

  /** All runs, newest first. */
  async list(): Promise<IndexedRun[]> {
    const rows = this.#database.prepare("SELECT * FROM runs ORDER BY started DESC, folder DESC").all();
    return Promise.all(rows.map((row) => this.#toRun(row)));
  }

  /**
   * @param names  folders in the runs root, or ids of runs
   * @throws       {RunError} for a name that no run has
   */
  async compare(names: readonly string[]): Promise<RunComparison> {
    const all = await this.list();
    const runs = names.map((name) => {
      const run = all.find(({ folder, runId }) => folder === name || runId === name);
      if (run === undefined) throw unknownRun(name, this.root, all);
      return run;
    });
    return { runs, differences: configDifferences(runs.map(({ config }) => config)) };
  }

  close(): void {
    this.#database.close();
  }

  async #index(folder: string, mark: LogMark): Promise<void> {
    const path = join(this.root, folder);
    let summary: RunSummary | null = null;
    let problem: string | null = null;
    try {
      if (mark.bytes > 0) summary = summarize(await collectHistory(readEvents(runPaths(path).events)));
    } catch (error) {
      // One damaged log must not hide the other runs: the row says what is wrong with this one.
      problem = describeError(error).what;
    }
    const row = {
      folder,
      log_bytes: mark.bytes,
      log_time: mark.time,
      problem,
      ...toColumns(summary, folder),
    };
    const columns = Object.keys(row);
    const marks = columns.map(() => "?").join(", ");
    this.#database
      .prepare(`INSERT OR REPLACE INTO runs (${columns.join(", ")}) VALUES (${marks})`)
      .run(...(Object.values(row) as SQLInputValue[]));
  }

  async #toRun(row: Record<string, unknown>): Promise<IndexedRun> {
    const summary = JSON.parse(String(row["summary"])) as RunSummary;
    const folder = String(row["folder"]);
    const problem = row["problem"] === null ? null : String(row["problem"]);
    const isOpen = problem === null && summary.status === "open";
    const openStatus = isOpen && (await isOwned(join(this.root, folder))) ? "running" : "killed";
    const closedStatus = problem === null ? summary.status : "damaged";
    return { ...summary, folder, problem, status: closedStatus === "open" ? openStatus : closedStatus };
  }
}

const schema = `
  CREATE TABLE runs (
    folder TEXT PRIMARY KEY,
    run_id TEXT NOT NULL,
    status TEXT NOT NULL,         -- open: running or killed, the folder's lock tells which
    started TEXT NOT NULL,        -- ISO 8601, UTC
    step INTEGER NOT NULL,
    planned_steps INTEGER NOT NULL,
    tokens_seen INTEGER NOT NULL,
    num_parameters INTEGER NOT NULL,
    train_loss REAL,
    validation_loss REAL,
    bits_per_byte REAL,
    best_bits_per_byte REAL,
    tokens_per_second REAL,
    share_of_peak REAL,
    step_seconds REAL NOT NULL,
    summary TEXT NOT NULL,        -- JSON: all of the above and the whole config
    problem TEXT,
    log_bytes INTEGER NOT NULL,   -- of events.jsonl when it was read
    log_time REAL NOT NULL
  ) STRICT;
  PRAGMA user_version = ${indexVersion};
`;

function toColumns(summary: RunSummary | null, folder: string): Record<string, SQLInputValue> {
  const shown = summary ?? { ...nothingYet, runId: folder };
  return {
    run_id: shown.runId,
    status: shown.status,
    started: shown.started,
    step: shown.step,
    planned_steps: shown.plannedSteps,
    tokens_seen: shown.tokensSeen,
    num_parameters: shown.numParameters,
    train_loss: shown.trainLoss,
    validation_loss: shown.validationLoss,
    bits_per_byte: shown.bitsPerByte,
    best_bits_per_byte: shown.bestBitsPerByte,
    tokens_per_second: shown.tokensPerSecond,
    share_of_peak: shown.shareOfPeak,
    step_seconds: shown.stepSeconds,
    summary: JSON.stringify(shown),
  };
}

/** A run whose folder exists and whose log does not say anything, or cannot be read. */
const nothingYet: Omit<RunSummary, "runId"> = {
  status: "open",
  started: "",
  version: "",
  step: 0,
  plannedSteps: 0,
  tokensSeen: 0,
  numParameters: 0,
  trainLoss: null,
  validationLoss: null,
  bitsPerByte: null,
  bestBitsPerByte: null,
  nextNextTokenAccuracy: null,
  tokensPerSecond: null,
  shareOfPeak: null,
  stepSeconds: 0,
  config: {} satisfies JsonObject,
};

/** @param path  null: in memory */
async function openDatabase(path: string | null, warnings: RunWarning[]): Promise<DatabaseSync> {
  // Loaded here: Node 22 prints a warning for whoever imports SQLite, and most commands never ask for the index.
  const { DatabaseSync: Database } = await import("node:sqlite");
  if (path === null) return prepare(new Database(":memory:"));
  try {
    return prepare(new Database(path));
  } catch (error) {
    if (isReadOnly(error)) {
      warnings.push(indexWarning(`${path} cannot be written; the runs are indexed in memory`, error));
      return prepare(new Database(":memory:"));
    }
    if (!isDamaged(error)) throw error;
    await rm(path, { force: true });
    await rm(`${path}-journal`, { force: true });
    warnings.push(indexWarning(`${path} was damaged; it is made anew from the run folders`, error));
    return prepare(new Database(path));
  }
}

/** Makes the table where it is missing or of another version. */
function prepare(database: DatabaseSync): DatabaseSync {
  try {
    database.exec("PRAGMA busy_timeout = 5000");
    const check = database.prepare("PRAGMA quick_check(1)").get()?.["quick_check"];
    if (check !== "ok") throw new DamagedIndex(String(check));
    const version = database.prepare("PRAGMA user_version").get()?.["user_version"];
    if (version !== indexVersion) {
      database.exec(`BEGIN IMMEDIATE; DROP TABLE IF EXISTS runs; ${schema} COMMIT;`);
    }
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

class DamagedIndex extends Error {}

/** SQLITE_CORRUPT, SQLITE_NOTADB. */
function isDamaged(error: unknown): boolean {
  return error instanceof DamagedIndex || [11, 26].includes(sqliteCode(error));
}

/** SQLITE_PERM, SQLITE_READONLY, SQLITE_CANTOPEN. */
function isReadOnly(error: unknown): boolean {
  return [3, 8, 14].includes(sqliteCode(error));
}

/** The primary result code: the low byte of the extended one. */
function sqliteCode(error: unknown): number {
  const code = error instanceof Error && "errcode" in error ? Number(error.errcode) : 0;
  return code & 0xff;
}

function indexWarning(what: string, error: unknown): RunWarning {
  return { type: "run.warning", what, why: describeError(error).what, fix: null };
}

interface LogMark {
  readonly bytes: number;
  readonly time: number;
}

async function logMark(path: string): Promise<LogMark> {
  try {
    const { size, mtimeMs } = await stat(runPaths(path).events);
    return { bytes: size, time: mtimeMs };
  } catch (error) {
    if (errorCode(error) === "ENOENT") return { bytes: 0, time: 0 };
    throw error;
  }
}

async function runFolders(root: string): Promise<string[]> {
  if (!existsSync(root)) return [];
  const entries = await readdir(root, { withFileTypes: true });
  const folders: string[] = [];
  for (const { name } of entries.filter((entry) => entry.isDirectory())) {
    const names = await readdir(join(root, name));
    if (names.includes("run.json")) folders.push(name);
  }
  return folders;
}

function unknownRun(name: string, root: string, runs: readonly IndexedRun[]): RunError {
  const names = runs.map(({ folder }) => folder);
  return new RunError(`${root} has no run ${JSON.stringify(name)}`, {
    why: `it holds ${names.length === 0 ? "no runs" : names.join(", ")}`,
    fix: "name one of them, or another folder of runs with --root DIR",
    fields: { name, root, names },
  });
}
