/** What `npm run bench` plans and what it leaves on disk. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { chosenParts, planParts } from "../../bench/parts.ts";
import { appendRow, describePlace, readRows, resultFile } from "../../bench/results.ts";
import { scratchFolder } from "../support/scratchFolder.ts";

const root = join(import.meta.dirname, "..", "..");

describe("planParts", () => {
  test("steps and peers cover the three presets and the dense model, steps in both precisions", () => {
    const parts = planParts(root);
    for (const preset of ["micro", "nano", "mini", "dense-124m"]) {
      const of = (name: string) =>
        parts.filter((part) => part.name === name && part.command.includes(` ${preset} `));
      expect(of("step").map(({ args }) => args[args.indexOf("--precision") + 1])).toEqual(["bf16", "f32"]);
      expect(of("peers")).toHaveLength(1);
    }
  });

  test("peers that are not set up say which script sets them up; our own parts need none", () => {
    const parts = planParts("/nowhere");
    const missing = parts.filter((part) => part.missing !== null);
    expect(new Set(missing.map(({ name }) => name))).toEqual(new Set(["peers", "gemm"]));
    for (const part of missing)
      expect(part.missing).toBe("PyTorch is not set up: bench/peers/setup.sh does it");
  });
});

describe("what is asked for", () => {
  const commands = (flags: { only?: string; preset?: string }, rounds?: string): string[] =>
    chosenParts(planParts(root, rounds), flags).map(({ command }) => command);

  test("--only, --preset and --rounds narrow the plan, and the command that is recorded says so", () => {
    expect(commands({ only: "peers", preset: "nano" }, "2")).toEqual([
      "npx minke bench peers --preset nano --rounds 2",
    ]);
    expect(commands({ only: "peers" }).map((command) => command.split(" ")[5])).toEqual([
      "nano",
      "micro",
      "mini",
      "dense-124m",
    ]);
    expect(commands({})).toHaveLength(planParts(root).length);
  });

  test("a part, a preset or a number of rounds that does not exist is refused with those that do", () => {
    expect(() => commands({ only: "peers,pears" })).toThrow(
      "--only pears is not one of kernels, step, costs, peers",
    );
    expect(() => commands({ preset: "v3" })).toThrow(
      "--preset v3 is not one of nano, micro, mini, dense-124m",
    );
    for (const rounds of ["0", "2.5", "many", ""])
      expect(() => commands({}, rounds)).toThrow("is not a whole number of at least 1");
  });
});

describe("appendRow", () => {
  test("adds one JSON line a row, with command, machine, versions, commit and load", async () => {
    const folder = await scratchFolder();
    const place = {
      ...describePlace(root),
      cpu: "Intel(R) Xeon(R) CPU @ 2.60GHz",
      date: "2026-11-22T01:02:03.000Z",
    };
    const file = resultFile(folder, place);
    expect(file).toBe(join(folder, "bench", "results", "2026-11-22-intel-xeon-cpu-2-60ghz.jsonl"));
    appendRow(file, "npx minke bench step", { bench: "step", tokensPerSecond: 1 }, place);
    appendRow(file, "npx minke bench step", { bench: "step", tokensPerSecond: 2 }, place);
    const lines = readFileSync(file, "utf8").trimEnd().split("\n");
    expect(lines.map((line) => JSON.parse(line).tokensPerSecond)).toEqual([1, 2]);
    expect(JSON.parse(lines[0]!)).toMatchObject({
      command: "npx minke bench step",
      ...place,
      load: expect.any(Number),
    });
    expect(place.commit).toMatch(/^[0-9a-f]{7,}(\+changes)?$/);
    expect(place.node).toBe(process.version);
    expect(readRows(folder).map(({ tokensPerSecond }) => tokensPerSecond)).toEqual([1, 2]);
  });

  test("leaves out where the clone lies", async () => {
    const folder = await scratchFolder();
    const place = describePlace(root);
    const file = resultFile(folder, place);
    appendRow(file, "x", { bench: "gemm", why: `${folder}/bench/peers/.js does not exist` }, place);
    expect(JSON.parse(readFileSync(file, "utf8")).why).toBe("bench/peers/.js does not exist");
  });
});
