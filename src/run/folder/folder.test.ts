import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ConfigError, RunError } from "../../base/index.ts";
import {
  checkpointName,
  createRun,
  freshRunPath,
  isOwned,
  openRun,
  readLatest,
  readManifest,
  runPaths,
} from "./folder.ts";

let base: string;
beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), "minke-folder-"));
});
afterEach(() => rm(base, { recursive: true }));

const run = {
  version: "0.1.0",
  command: ["train", "--preset", "unit"],
  config: { seed: 1, model: { nGroup: 4 } },
};

describe("createRun", () => {
  test("makes the folder with who the run is, and owns it", async () => {
    const folder = await createRun(join(base, "deep", "a"), run, new Date(0));
    expect(await readdir(folder.paths.root)).toEqual(["checkpoints", "lock", "run.json"]);
    expect(await readManifest(folder.paths.root)).toEqual({
      schema: 1,
      runId: "a",
      created: "1970-01-01T00:00:00.000Z",
      unsettled: null,
      layout: null,
      ...run,
    });
    expect(folder.warnings).toEqual([]);
    expect(await isOwned(folder.paths.root)).toBe(true);
    await folder.close();
    expect(await isOwned(folder.paths.root)).toBe(false);
  });

  test("notes how ranks share the work, and that it is one rank again", async () => {
    const folder = await createRun(join(base, "a"), run);
    const layout = { dp: 2, ep: 1, pp: 1, zero1: true, schedule: null };
    for (const noted of [layout, null]) {
      await folder.noteLayout(noted);
      expect((await readManifest(folder.paths.root)).layout).toEqual(noted);
      expect((await readManifest(folder.paths.root)).config).toEqual(run.config);
    }
    await folder.close();
  });

  test("never writes into a folder that holds a run", async () => {
    const path = join(base, "a");
    await (await createRun(path, run)).close();
    const before = await readFile(runPaths(path).manifest, "utf8");
    const error = (await createRun(path, run).catch((reason: unknown) => reason)) as RunError;
    expect(error.what).toBe(`${path} already holds a run`);
    expect(error.fix).toBe("add --resume to go on with it, or choose another --run DIR");
    expect(await readFile(runPaths(path).manifest, "utf8")).toBe(before);
    expect(await isOwned(path)).toBe(false);
  });

  test("never writes into a folder that holds anything else", async () => {
    await writeFile(join(base, "letters.txt"), "x");
    await expect(createRun(base, run)).rejects.toThrow(`${base} already holds letters.txt`);
    expect(await readdir(base)).toEqual(["letters.txt"]);
  });

  test("says that a file is in the way, and leaves the file", async () => {
    await writeFile(join(base, "a"), "x");
    const error = (await createRun(join(base, "a"), run).catch((reason: unknown) => reason)) as RunError;
    expect(error).toBeInstanceOf(RunError);
    expect(error.what).toBe(`cannot make the run folder: ${join(base, "a")} is in the way of a folder`);
    expect(await readFile(join(base, "a"), "utf8")).toBe("x");
  });

  test("a run that is discarded leaves no folder, and what somebody else put there", async () => {
    const path = join(base, "a");
    const first = await createRun(path, run);
    await mkdir(join(path, "data"));
    await first.discard(["data", "tokenizer.json"]);
    expect(await readdir(base)).toEqual([]);
    const second = await createRun(path, run);
    await writeFile(join(path, "notes.txt"), "mine");
    await second.discard(["data"]);
    expect(await readdir(path)).toEqual(["notes.txt"]);
  });

  test("of many that make the same folder at once one gets it, and its run.json stays as that one wrote it", async () => {
    const path = join(base, "a");
    const attempts = await Promise.allSettled(
      Array.from({ length: 8 }, (_, seed) => createRun(path, { ...run, config: { seed } })),
    );
    const made = attempts.filter((attempt) => attempt.status === "fulfilled").map(({ value }) => value);
    expect(made).toHaveLength(1);
    for (const attempt of attempts) {
      if (attempt.status === "rejected") expect(attempt.reason).toBeInstanceOf(RunError);
    }
    expect((await readManifest(path)).config).toEqual(made[0]!.manifest.config);
    expect((await readdir(path)).sort()).toEqual(["checkpoints", "lock", "run.json"]);
    await made[0]!.close();
  });

  test("takes a folder whose creation was cut off", async () => {
    const path = join(base, "a");
    await mkdir(join(path, "checkpoints"), { recursive: true });
    await writeFile(join(path, "run.json.3c0f.tmp"), '{"sch');
    await (await createRun(path, run)).close();
    expect((await readManifest(path)).runId).toBe("a");
  });

  test("says that a read-only place or a file in the way cannot hold a run", async () => {
    await expect(createRun("/sys/kernel/run", run)).rejects.toThrow(RunError);
    await writeFile(join(base, "file"), "");
    await expect(createRun(join(base, "file"), run)).rejects.toThrow("is in the way of a folder");
  });
});

describe("openRun", () => {
  test("is refused while another owner writes", async () => {
    const path = join(base, "a");
    const first = await createRun(path, run);
    await expect(openRun(path)).rejects.toThrow("two runs in one folder would overwrite each other");
    await first.close();
    const second = await openRun(path);
    expect(second.manifest.config).toEqual(run.config);
    await second.close();
  });

  test("takes over from a process that is gone, with a warning", async () => {
    const path = join(base, "a");
    await (await createRun(path, run)).close();
    const dead = { pid: 2 ** 22 + 1, startTime: "x", host: hostname(), since: "", token: "t" };
    await writeFile(runPaths(path).lock, JSON.stringify(dead));
    const folder = await openRun(path);
    expect(folder.warnings).toHaveLength(1);
    expect(folder.warnings[0]!.what).toContain(`of process ${dead.pid}, which is gone`);
    await folder.close();
  });
});

describe("readManifest", () => {
  test("says that a folder is no run folder", async () => {
    await expect(readManifest(base)).rejects.toThrow(`${base} is not a run folder`);
    await expect(readManifest(join(base, "nothing"))).rejects.toThrow("is not a run folder");
  });

  test("names damage in run.json", async () => {
    const { manifest } = runPaths(base);
    await writeFile(manifest, '{"schema":1,');
    await expect(readManifest(base)).rejects.toThrow(`${manifest} is not JSON`);
    await writeFile(
      manifest,
      JSON.stringify({ schema: 1, runId: "a", created: "now", version: "", command: [] }),
    );
    await expect(readManifest(base)).rejects.toThrow(ConfigError);
  });
});

describe("latest", () => {
  test("is null before the first checkpoint, then the newest name", async () => {
    const folder = await createRun(join(base, "a"), run);
    expect(await readLatest(folder.paths.root)).toBeNull();
    await folder.writeLatest(checkpointName(100));
    await folder.writeLatest(checkpointName(200));
    expect(await readLatest(folder.paths.root)).toBe("step-200");
    await folder.close();
  });
});

describe("freshRunPath", () => {
  test("counts on from the highest number of the day and label", async () => {
    const day = new Date("2026-11-21T23:59:00Z");
    const runs = join(base, "runs");
    expect(await freshRunPath(runs, "nano", day)).toBe(join(runs, "2026-11-21-nano-1"));
    for (const name of [
      "2026-11-21-nano-2",
      "2026-11-21-nano-11",
      "2026-11-20-nano-30",
      "2026-11-21-nano-x",
    ]) {
      await mkdir(join(runs, name), { recursive: true });
    }
    expect(await freshRunPath(runs, "nano", day)).toBe(join(runs, "2026-11-21-nano-12"));
  });
});
