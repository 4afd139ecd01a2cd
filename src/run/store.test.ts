import { appendFile, mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type SyntheticRunOptions, syntheticRun } from "../../test/support/syntheticRun.ts";
import { formatEvent } from "../base/index.ts";
import { createRun, type RunFolder, runPaths } from "./folder/folder.ts";
import { openEventLog } from "./log/eventLog.ts";
import { type IndexedRun, openRunStore } from "./store.ts";

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "minke-store-"));
});
afterEach(() => rm(root, { recursive: true }));

/** Leaves a run in the root, as training would; the folder is given back unless it is to look as if still running. */
async function leaveRun(name: string, options: SyntheticRunOptions, isRunning = false): Promise<RunFolder> {
  const folder = await createRun(join(root, name), { version: "0.1.0", command: [], config: {} });
  const { log } = await openEventLog(folder.paths.events);
  for (const event of syntheticRun(options)) {
    log.emit(
      event.type === "run.started"
        ? { ...event, runId: `id of ${name}`, config: { seed: options.seed! } }
        : event,
    );
  }
  await log.close();
  if (!isRunning) await folder.close();
  return folder;
}

async function listed(): Promise<IndexedRun[]> {
  const store = await openRunStore(root);
  try {
    return await store.list();
  } finally {
    store.close();
  }
}

const index = () => join(root, "index.sqlite");

describe("RunStore.list", () => {
  test("shows every run with its figures and what has become of it", async () => {
    await leaveRun("done", { steps: 60, seed: 1 });
    await leaveRun("killed", { steps: 20, seed: 2, isCompleted: false });
    const running = await leaveRun("running", { steps: 30, seed: 3, isCompleted: false }, true);
    const runs = await listed();
    expect(
      Object.fromEntries(runs.map(({ folder, status, step }) => [folder, `${status} at ${step}`])),
    ).toEqual({
      done: "completed at 60",
      killed: "killed at 20",
      running: "running at 30",
    });
    expect(runs.find(({ folder }) => folder === "done")!.bitsPerByte).toBeGreaterThan(0);
    await running.close();
    expect((await listed()).find(({ folder }) => folder === "running")!.status).toBe("killed");
  });

  test("a folder that does not exist holds no runs, and is not made", async () => {
    const store = await openRunStore(join(root, "none"));
    expect(await store.list()).toEqual([]);
    store.close();
    expect(await readdir(root)).toEqual([]);
  });

  test("a run without events yet is listed too", async () => {
    await (await createRun(join(root, "fresh"), { version: "0", command: [], config: {} })).close();
    expect(await listed()).toMatchObject([{ folder: "fresh", runId: "fresh", step: 0, status: "killed" }]);
  });

  test("a damaged log is named and hides no other run", async () => {
    await leaveRun("good", { steps: 10, seed: 1 });
    const bad = await leaveRun("bad", { steps: 10, seed: 2 });
    const lines = (await readFile(bad.paths.events, "utf8")).split("\n");
    lines[4] = lines[4]!.slice(0, 30);
    await writeFile(bad.paths.events, lines.join("\n"));
    const runs = await listed();
    expect(runs.find(({ folder }) => folder === "bad")).toMatchObject({ status: "damaged" });
    expect(runs.find(({ folder }) => folder === "bad")!.problem).toContain("line 5 is not an event");
    expect(runs.find(({ folder }) => folder === "good")).toMatchObject({
      status: "completed",
      problem: null,
    });
  });
});

describe("the index follows the folders", () => {
  test("new events are seen and unchanged logs are not read again", async () => {
    const { paths } = await leaveRun("a", { steps: 10, seed: 1, isCompleted: false });
    await leaveRun("b", { steps: 10, seed: 2 });
    expect((await listed()).map(({ step }) => step)).toEqual([10, 10]);
    // A figure that only the index holds survives for the run whose log did not change.
    const database = new DatabaseSync(index());
    database.exec("UPDATE runs SET summary = json_set(summary, '$.step', 777)");
    database.close();
    const next = [...syntheticRun({ steps: 11 })].find(
      (event) => event.type === "step.completed" && event.step === 11,
    );
    await appendFile(paths.events, `${formatEvent(next!)}\n`);
    expect(Object.fromEntries((await listed()).map(({ folder, step }) => [folder, step]))).toEqual({
      a: 11,
      b: 777,
    });
  });

  test("a run whose folder is gone is forgotten", async () => {
    await leaveRun("a", { steps: 5, seed: 1 });
    await leaveRun("b", { steps: 5, seed: 2 });
    await listed();
    await rm(runPaths(join(root, "a")).root, { recursive: true });
    expect((await listed()).map(({ folder }) => folder)).toEqual(["b"]);
  });

  test("a missing index is made anew with the same content", async () => {
    await leaveRun("a", { steps: 25, seed: 1 });
    const before = await listed();
    await rm(index());
    expect(await listed()).toEqual(before);
  });

  test.each([
    ["is no database at all", () => writeFile(index(), "not a database ".repeat(500))],
    ["was cut off", () => truncate(index(), 5000)],
    [
      "has a destroyed page",
      async () => {
        const bytes = await readFile(index());
        bytes.fill(0xff, 4096, 12_288);
        await writeFile(index(), bytes);
      },
    ],
  ])("an index that %s is made anew, with a warning", async (_, damage) => {
    for (const name of ["a", "b", "c"]) await leaveRun(name, { steps: 30, seed: 1 });
    const before = await listed();
    await damage();
    const store = await openRunStore(root);
    expect(store.warnings.map(({ what }) => what)).toEqual([
      `${index()} was damaged; it is made anew from the run folders`,
    ]);
    expect(await store.list()).toEqual(before);
    store.close();
    expect(await listed()).toEqual(before);
  });

  test("an index of another version is made anew", async () => {
    await leaveRun("a", { steps: 5, seed: 1 });
    const database = new DatabaseSync(index());
    database.exec("CREATE TABLE runs (old TEXT); PRAGMA user_version = 99");
    database.close();
    expect(await listed()).toHaveLength(1);
  });

  test("any SQLite client can read it", async () => {
    await leaveRun("a", { steps: 50, seed: 1 });
    const [run] = await listed();
    const database = new DatabaseSync(index(), { readOnly: true });
    const row = database.prepare("SELECT folder, step, bits_per_byte, status FROM runs").get();
    expect({ ...row }).toEqual({
      folder: "a",
      step: 50,
      bits_per_byte: run!.bitsPerByte,
      status: "completed",
    });
    database.close();
  });
});

describe("RunStore.compare", () => {
  test("puts runs beside each other, by folder or id, with the settings that differ", async () => {
    await leaveRun("a", { steps: 5, seed: 1 });
    await leaveRun("b", { steps: 6, seed: 2 });
    const store = await openRunStore(root);
    const { runs, differences } = await store.compare(["id of b", "a"]);
    expect(runs.map(({ folder, step }) => [folder, step])).toEqual([
      ["b", 6],
      ["a", 5],
    ]);
    expect(differences).toEqual([{ key: "seed", values: [2, 1] }]);
    await expect(store.compare(["a", "c"])).rejects.toThrow(`${root} has no run "c"`);
    store.close();
  });
});

test("a folder without runs holds no index afterwards either", async () => {
  const store = await openRunStore(root);
  expect(await store.list()).toEqual([]);
  store.close();
  expect(await readdir(root)).toEqual([]);
});
