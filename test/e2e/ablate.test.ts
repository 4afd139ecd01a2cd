/** `minke ablate` as a user runs it: tables for people, one line an arm for programs. */
import { readdir } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { builtEntry, minke, startMinke, startProgram } from "../support/minke.ts";
import { scratchFolder } from "../support/scratchFolder.ts";
import { writeTrainingText } from "../support/trainingText.ts";

const small = ["data.tokenizer=bytes", "rowLength=16", "batchRows=2", "microBatchRows=2"];

async function ablate(words: readonly string[]): Promise<{ stdout: string; left: string[] }> {
  const cwd = await scratchFolder();
  await writeTrainingText(cwd, 100);
  const set = small.flatMap((setting) => ["--set", setting]);
  const fixed = ["ablate", "--data", "text.txt", "--preset", "unit", "--steps", "4", "--seeds", "2"];
  const { code, stdout, stderr } = await minke([...fixed, ...set, ...words], { cwd });
  expect(code, stderr).toBe(0);
  return { stdout, left: await readdir(cwd) };
}

describe("minke ablate", () => {
  test("prints one JSON object an arm, with every seed, and leaves nothing behind", async () => {
    const { stdout, left } = await ablate(["--only", "balance,optimizer", "--json"]);
    const rows = stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(rows.map(({ ablation, arm }) => [ablation, arm])).toEqual([
      ["balance", "router bias"],
      ["balance", "sequence balance loss only"],
      ["balance", "none"],
      ["optimizer", "AdamW"],
      ["optimizer", "Muon"],
    ]);
    for (const row of rows) {
      expect(row["seeds"]).toHaveLength(2);
      expect(row["loss"]).toMatchObject({ mean: expect.any(Number), halfWidth: expect.any(Number) });
      expect(row["maxViolation"]).toMatchObject({ mean: expect.any(Number) });
    }
    // The preset's recipe is an arm of both: it is trained once, so that its figures are the same to the digit.
    expect(rows[3]!["seeds"]).toEqual(rows[0]!["seeds"]);
    expect(rows[4]!["loss"]).not.toEqual(rows[3]!["loss"]);
    expect(rows[0]!["lossDifference"]).toBeNull();
    expect(left).toEqual(["text.txt"]);
  });

  test("trains FP8 without each part of its recipe, and bf16 beside it", async () => {
    const { stdout } = await ablate(["fp8", "--json"]);
    const rows = stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as { arm: string; loss: { mean: number } });
    expect(rows.map(({ arm }) => arm)).toEqual([
      "bf16",
      "FP8",
      "FP8, one scale a tensor",
      "FP8, gradients in 128x128 blocks",
      "FP8, 14-bit sums",
      "FP8, 14-bit sums, no promotion",
    ]);
    // No two arms computed the same thing.
    expect(new Set(rows.map(({ loss }) => loss.mean)).size).toBe(rows.length);
  });

  test("prints a table with an interval for each mean; a dense model has no load to balance", async () => {
    const { stdout } = await ablate(["--only", "moe"]);
    const [question, head, ...arms] = stdout.trim().split("\n");
    expect(question).toMatch(/^moe: /);
    expect(head).toContain("max violation");
    expect(arms).toHaveLength(2);
    expect(arms[0]).toMatch(/^ {2}experts +\d\.\d{4} \+- \d/);
    expect(arms[1]).toMatch(/^ {2}dense, equal FLOPs .* - +\d+$/);
  });

  test.each(["SIGHUP", "SIGINT twice"])("leaves no folder behind at %s", async (how) => {
    const cwd = await scratchFolder();
    await writeTrainingText(cwd, 100);
    const set = small.flatMap((setting) => ["--set", setting]);
    const args = [
      "ablate",
      "--data",
      "text.txt",
      "--preset",
      "unit",
      "--steps",
      "5000",
      "--seeds",
      "1",
      ...set,
    ];
    const command = [process.execPath, await builtEntry(), ...args];
    // Its temporary folder is made in one of its own.
    const { child, finished } = startProgram("env", [`TMPDIR=${cwd}`, ...command], { cwd });
    child.stderr?.on("data", (text: string) => {
      if (text.includes("seed 0")) setTimeout(() => child.kill(how === "SIGHUP" ? "SIGHUP" : "SIGINT"), 300);
      if (how !== "SIGHUP" && text.includes("once more")) child.kill("SIGINT");
    });
    expect((await finished).code).toBe(130);
    expect(await readdir(cwd)).toEqual(["text.txt"]);
  });

  test.each(["table", "json"])(
    "Ctrl-C in the second arm prints the runs that are finished (%s)",
    async (form) => {
      const cwd = await scratchFolder();
      await writeTrainingText(cwd, 100);
      const set = small.flatMap((setting) => ["--set", setting]);
      const fixed = ["ablate", "--data", "text.txt", "--preset", "unit", "--steps", "60", "--seeds", "2"];
      const json = form === "json" ? ["--json"] : [];
      const { child, finished } = await startMinke([...fixed, "--only", "optimizer", ...set, ...json], {
        cwd,
      });
      // With --json the line of the first arm tells that the second has begun, else what is said on standard error.
      const stream = form === "json" ? child.stdout! : child.stderr!;
      const sign = form === "json" ? '"arm":"AdamW"' : "Muon, seed 0";
      stream.on("data", (text: string) => void (text.includes(sign) && child.kill("SIGINT")));
      const { code, stdout } = await finished;
      expect(code).toBe(130);
      if (form === "json") {
        const rows = stdout
          .trimEnd()
          .split("\n")
          .map((line) => JSON.parse(line) as Record<string, unknown>);
        expect(rows[0]).toMatchObject({ arm: "AdamW", seeds: [{ seed: 0 }, { seed: 1 }] });
      } else {
        const [question, , ...arms] = stdout.trim().split("\n");
        expect(question).toMatch(/^optimizer: /);
        expect(arms[0]).toMatch(/^ {2}AdamW +\d\.\d{4} \+- \d/);
      }
      expect(await readdir(cwd)).toEqual(["text.txt"]);
    },
  );
});
