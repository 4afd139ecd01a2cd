/** `minke plan` as a user runs it: text, JSON, a page, a sweep, a service, a cluster of one's own. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { minke } from "../support/minke.ts";
import { scratchFolder } from "../support/scratchFolder.ts";

const laptops = {
  name: "two laptops",
  nodes: 2,
  devicesPerNode: 1,
  device: { name: "laptop", memoryGiB: 16, bf16Tflops: 1, memoryGBps: 60 },
  intraNodeGBps: 60,
  interNodeGBps: 0.1,
};

describe("minke plan", () => {
  test("is the published run: both kinds of costs beside the published figures, and their distance", async () => {
    const { code, stdout, stderr } = await minke(["plan"], { cwd: await scratchFolder() });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toContain("671,026,419,200 parameters, 37,552,297,472 a token; 256 nodes of 8 H800");
    expect(stdout).toContain("pp=16,dp=128,ep=64 dualpipe, 1 row a micro-batch");
    expect(stdout).toMatch(/ +calibrated +uncalibrated +published\n/);
    expect(stdout).toMatch(/step .*19\.93 s\n {2}off the published step +[-+]\d\.\d % +[-+]1?\d\.\d %\n/);
    expect(stdout).toContain("not explained by the schedule");
    expect(stdout).toMatch(/uncalibrated against measured, a chunk of four MoE layers: F .*W .*F&B/);
    const drawn = stdout.split("\n").filter((line) => /^ +\d+ [FBbw#.]{100}$/.test(line));
    expect(drawn).toHaveLength(16);
  });

  test("--json has the same in SI units, --html a page with the pipeline and every table", async () => {
    const cwd = await scratchFolder();
    const { code, stdout, stderr } = await minke(["plan", "--json", "--html", "plan.html"], { cwd });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const plan = JSON.parse(stdout) as {
      schema: number;
      parameters: { main: number };
      times: { costs: string; stepSeconds: number }[];
      published: { stepSeconds: number };
      memory: { rank: number; total: number }[];
      assumptions: { source: string }[];
    };
    expect(plan).toMatchObject({ schema: 1, parameters: { main: 671_026_419_200 } });
    expect(plan.times.map(({ costs }) => costs)).toEqual(["calibrated", "roofline"]);
    for (const { stepSeconds } of plan.times) {
      expect(Math.abs(stepSeconds / plan.published.stepSeconds - 1)).toBeLessThan(0.25);
    }
    expect(plan.memory.map(({ rank }) => rank)).toEqual(Array.from({ length: 16 }, (_, rank) => rank));
    expect(plan.assumptions.length).toBeGreaterThan(5);
    const page = await readFile(join(cwd, "plan.html"), "utf8");
    for (const heading of ["A step", "Bubbles", "Memory of a device", "All-to-all of a device"]) {
      expect(page).toContain(`<h2>${heading}</h2>`);
    }
    expect(page.match(/<rect/g)!.length).toBeGreaterThan(16 * 120);
    expect(page).not.toMatch(/https?:\/\/(?!www\.w3\.org)/);
  });

  test("--sweep ranks at least 200 layouts and says what the rules refuse", async () => {
    const cwd = await scratchFolder();
    const { stdout } = await minke(["plan", "--sweep", "--json"], { cwd });
    const { rows, refused } = JSON.parse(stdout) as {
      rows: { fits: boolean }[];
      refused: { example: string }[];
    };
    expect(rows.length).toBeGreaterThanOrEqual(200);
    expect(rows[0]!.fits).toBe(true);
    expect(refused.map(({ example }) => example)).toContain("ep 512 does not divide 256 experts");
    const text = await minke(["plan", "--sweep", "--layout", "pp=16,ep=64"], { cwd });
    expect(text.stdout).toMatch(/^8 layouts in \d+\.\d s, uncalibrated; \d fit\n/);
  });

  test("plans a small model on a cluster of one's own, and says what it took over from elsewhere", async () => {
    const cwd = await scratchFolder();
    await writeFile(join(cwd, "lab.json"), JSON.stringify(laptops));
    const args = [
      "plan",
      "--cluster",
      "lab.json",
      "--model",
      "nano",
      "--batch-rows",
      "32",
      "--tokens",
      "10M",
    ];
    const { code, stdout } = await minke(args, { cwd });
    expect(code).toBe(0);
    expect(stdout).toContain("nano on two laptops");
    expect(stdout).toContain("in bf16");
    expect(stdout).not.toContain("off the published step");
    expect(stdout).toContain("taken over from Hopper, not of this device");
    expect(stdout).not.toContain("WARNING");
  });

  test("warns where nothing fits", async () => {
    const cwd = await scratchFolder();
    const { code, stdout } = await minke(["plan", "--cluster", "h800x64"], { cwd });
    expect(code).toBe(0);
    expect(stdout).toMatch(/^WARNING: does not fit: rank \d+ needs [\d.]+ GiB of 79\.1 GiB/m);
  });

  test("--serving has units, the bound of an output token, and EPLB's work on loads", async () => {
    const cwd = await scratchFolder();
    const layer = (turn: number): number[] =>
      Array.from({ length: 256 }, (_, expert) => Math.round(10_000 / (1 + ((expert * 7 + turn) % 256))));
    await writeFile(join(cwd, "loads.json"), JSON.stringify([layer(0), layer(31)]));
    const { code, stdout } = await minke(["plan", "--serving", "--loads", "loads.json"], { cwd });
    expect(code).toBe(0);
    expect(stdout).toMatch(/400 Gb\/s card: .*14\.76 ms/);
    expect(stdout).toMatch(/NVL72: .*0\.82 ms/);
    expect(stdout).toMatch(/production, decode +18 x 8 +EP144 +2 /);
    expect(stdout).toContain("EPLB, production, prefill: groups of experts stay on a node");
    const none = await minke(["plan", "--serving", "--json"], { cwd });
    expect(JSON.parse(none.stdout)).toMatchObject({ schema: 1, balance: [] });
  });

  test.each([
    [["--serving", "--batch-rows", "64"], /--batch-rows/],
    [["--serving", "--layout", "pp=4", "--schedule", "zb"], /--layout.*--schedule/],
    [["--tokens", "0"], /tokens/],
    [["--layout", ""], /--layout names nothing/],
  ])("refuses what would have no effect or no meaning: %j", async (flags, says) => {
    const { code, stdout, stderr } = await minke(["plan", ...flags], { cwd: await scratchFolder() });
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(says);
  });

  test("--serving takes the loads that a run has recorded", async () => {
    const cwd = await scratchFolder();
    const counts = Array.from({ length: 16 }, (_, expert) => 100 + 10 * expert);
    const event = { type: "step.completed", step: 1, expertLoad: [{ layer: 1, counts }] };
    await writeFile(join(cwd, "events.jsonl"), `${JSON.stringify(event)}\n`);
    const args = ["plan", "--serving", "--model", "nano", "--loads", "events.jsonl"];
    const { code, stdout, stderr } = await minke(args, { cwd });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toContain("busiest device over the mean");
  });
});
