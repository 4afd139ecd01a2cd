/** What ranks record of a run, and what `minke trace` makes of it, as a user sees it. */
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { planZeroBubble, type RankSpans, readRankTrace, writeAction } from "../../src/parallel/index.ts";
import { minke } from "../support/minke.ts";
import { nativeIsMissing } from "../support/native.ts";
import { rankedArguments } from "../support/rankedRun.ts";
import { scratchFolder } from "../support/scratchFolder.ts";
import { fingerprint } from "../support/shortRun.ts";
import { writeTrainingText } from "../support/trainingText.ts";

const STEPS = 4;
const PIPELINE = ["--layout", "pp=2", "--schedule", "zb", "--set", "model.numNextnPredictLayers=0"];

async function ranksOf(folder: string): Promise<readonly RankSpans[]> {
  const names = (await readdir(folder)).sort();
  return Promise.all(
    names.map(async (name) => readRankTrace(await readFile(join(folder, name), "utf8"), name)),
  );
}

describe.skipIf(nativeIsMissing)("a trace of ranks", () => {
  test("has every action of the plan on its rank, and leaves the run as it is without", {
    timeout: 240_000,
  }, async () => {
    const cwd = await scratchFolder();
    const text = await writeTrainingText(cwd);
    const start = async (run: string, ...more: readonly string[]): Promise<void> => {
      const args = [...rankedArguments({ text, run, steps: STEPS }), ...PIPELINE, ...more];
      const { code, stderr } = await minke(args, { cwd });
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    };
    const [traced, plain] = [join(cwd, "traced"), join(cwd, "plain")];
    await start(traced, "--trace");
    await start(plain);
    expect(await fingerprint(traced, STEPS)).toEqual(await fingerprint(plain, STEPS));

    const ranks = await ranksOf(join(traced, "trace"));
    expect(ranks.map(({ rank }) => rank)).toEqual([0, 1]);
    const { config } = JSON.parse(await readFile(join(traced, "run.json"), "utf8"));
    const plan = planZeroBubble({ ranks: 2, microBatches: config.batchRows / config.microBatchRows });
    for (const { rank, spans } of ranks) {
      const names = new Set(spans.filter(({ category }) => category === "compute").map(({ name }) => name));
      const actions = plan.actions[rank]!.map((action) => writeAction(plan, action));
      expect([...names].filter((name) => actions.includes(name)).sort()).toEqual(actions.toSorted());
      expect(names).toContain("sums over ranks");
      expect(names).toContain("update");
    }

    const { stdout, code } = await minke(["trace", "traced", "--html", "t.html", "--json", "t.json"], {
      cwd,
    });
    expect(code).toBe(0);
    expect(stdout).toMatch(/^timeline {2}\S+.*\nrank 0 {4}computing .* exposed .* bubble .*\nrank 1 /);
    expect(await readFile(join(cwd, "t.html"), "utf8")).toContain("Ranks of traced");
    const { traceEvents } = JSON.parse(await readFile(join(cwd, "t.json"), "utf8"));
    expect(new Set(traceEvents.map(({ pid }: { readonly pid: number }) => pid))).toEqual(new Set([0, 1]));
  });

  test("is made of timed chunks too, at the pace that a file gives", { timeout: 120_000 }, async () => {
    const cwd = await scratchFolder();
    const chunks = { forward: 0.01, backward: 0.02, weight: 0.01, overlapped: 0.03 };
    await writeFile(join(cwd, "pace.json"), JSON.stringify({ chunks }));
    const args = ["bench", "schedules", "--ranks", "2", "--micro-batches", "4", "--pace", "pace.json"];
    const { stdout, stderr, code } = await minke([...args, "--trace", "kept", "--json"], { cwd });
    expect({ stderr, code }).toEqual({ stderr: "", code: 0 });
    const rows = stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(rows.map(({ name }) => name.split(",")[0])).toEqual(["1f1b", "zb", "dualpipe", "dualpipev"]);
    for (const row of rows) {
      // F + B is at least 4 x 30 ms on either rank, and no sleep is too short.
      expect(row.milliseconds).toBeGreaterThan(119);
      expect(row.milliseconds).toBeGreaterThan(row.simulatedMilliseconds - 1);
    }
    expect((await readdir(join(cwd, "kept"))).sort()).toEqual(
      ["1f1b-2", "dualpipe-2", "dualpipev-2", "zb-2"].sort(),
    );
    expect((await minke(["trace", "kept/zb-2"], { cwd })).stdout).toContain("rank 1");
  });

  test.each([
    ["no ranks", ["train", "--data", "t", "--trace"], "--trace records ranks, and there are none"],
    [
      "the reference backend",
      ["train", "--data", "t", "--ranks", "2", "--trace", "--backend", "reference"],
      "--trace needs the native backend",
    ],
    ["no trace in the folder", ["trace", "."], "no rank of . has recorded what it did"],
    [
      "no pace in the file",
      ["bench", "schedules", "--pace", "pace.json"],
      "pace.json has no times of chunks",
    ],
  ])("cannot be had with %s, and that is said", async (_, args, what) => {
    const cwd = await scratchFolder();
    await writeFile(join(cwd, "pace.json"), "{}");
    const { stderr, code } = await minke(args, { cwd });
    expect(code).toBe(1);
    expect(stderr).toContain(what);
  });
});
