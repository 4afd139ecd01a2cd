/** A small model writes; and every other verb does its work once. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { minke, type Outcome } from "../support/minke.ts";
import { nativeIsMissing } from "../support/native.ts";
import { sentences, writeTrainingText } from "../support/trainingText.ts";

/** Enough to write words of the text; on the reference backend only enough to write. */
const [STEPS, ROWS] = nativeIsMissing ? [2, 1] : [60, 16];

let folder: string;
let trained: Promise<void> | undefined;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "minke-generate-"));
  await writeTrainingText(folder, 300);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Trains `runs/a` (by the first test that asks). */
async function trainedRun(): Promise<string> {
  trained ??= train("runs/a", "1");
  await trained;
  return "runs/a";
}

async function train(run: string, seed: string): Promise<void> {
  const rows = [`batchRows=${ROWS}`, `microBatchRows=${ROWS}`, "evaluate.lastRows=4"];
  const set = ["model.vocabSize=380", ...rows, "checkpoint.everySteps=0"];
  const { code, stderr } = await minke(
    [
      ...[
        "train",
        "--preset",
        "unit",
        "--data",
        "text.txt",
        "--steps",
        String(STEPS),
        "--run",
        run,
        "--seed",
        seed,
      ],
      ...set.flatMap((setting) => ["--set", setting]),
    ],
    { cwd: folder },
  );
  expect({ code, stderr }).toMatchObject({ code: 0 });
}

async function write(...flags: string[]): Promise<Outcome> {
  const run = await trainedRun();
  // Where it is asked for, the reference backend is no news on standard error.
  const backend = nativeIsMissing ? ["--backend", "reference"] : [];
  const args = ["generate", run, "--prompt", "The whale", "--max-tokens", "16", ...backend, ...flags];
  const outcome = await minke(args, {
    cwd: folder,
  });
  expect(outcome).toMatchObject({ code: 0, stderr: "" });
  return outcome;
}

const lines = (text: string): Record<string, unknown>[] =>
  text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);

describe("minke generate", () => {
  test.skipIf(nativeIsMissing)("continues the prompt with words of the text", async () => {
    const { stdout } = await write("--temperature", "0");
    expect(stdout).toMatch(/^The whale\S* \w+/);
    expect(stdout.slice("The whale".length)).toMatch(/The|the|in|and/);
  });

  test("gives equal texts for equal seeds, whatever the threads, and other texts for other seeds", async () => {
    const texts = await Promise.all([
      write("--seed", "3", "--threads", "1"),
      write("--seed", "3", "--threads", "2"),
      write("--seed", "4", "--threads", "1"),
    ]);
    const [first, again, other] = texts.map(({ stdout }) => stdout);
    expect(again).toBe(first);
    expect(other).not.toBe(first);
  });

  test("takes the most likely token at temperature 0, whatever the seed", async () => {
    const [first, other] = [
      await write("--temperature", "0"),
      await write("--temperature", "0", "--seed", "9"),
    ];
    expect(other.stdout).toBe(first.stdout);
    expect((await write("--top-k", "1", "--seed", "9")).stdout).toBe(first.stdout);
  });

  test("--json prints pieces that join to the text, and an end", async () => {
    const events = lines((await write("--temperature", "0", "--json")).stdout);
    const pieces = events.filter(({ type }) => type === "piece");
    expect(pieces.length).toBeGreaterThan(1);
    expect(events.at(-1)).toMatchObject({ type: "done", pieces: pieces.length, seconds: expect.any(Number) });
    const text = `The whale${pieces.map(({ text }) => String(text)).join("")}\n`;
    expect(text).toBe((await write("--temperature", "0")).stdout);
  });

  test("ends before a stop text, even one that is spread over tokens, and does not print it", async () => {
    const whole = (await write("--temperature", "0")).stdout.slice("The whale".length).trimEnd();
    const stop = whole.slice(5, 9);
    const { stdout } = await write("--temperature", "0", "--stop", stop);
    expect(stdout).toBe(`The whale${whole.slice(0, whole.indexOf(stop))}\n`);
  });
});

describe("minke inspect", () => {
  test("--json lists config, parameters and tensors, and verifies the hashes", async () => {
    const { code, stdout } = await minke(["inspect", await trainedRun(), "--json"], { cwd: folder });
    expect(code).toBe(0);
    const found = lines(stdout)[0]!;
    expect(found).toMatchObject({ isWhole: true, damage: null, config: { hiddenSize: 32, vocabSize: 380 } });
    const tensors = found["tensors"] as { name: string; shape: number[] }[];
    expect(tensors.find(({ name }) => name === "lm_head.weight")?.shape).toEqual([380, 32]);
    const sizes = tensors.map(({ shape }) => shape.reduce((product, dim) => product * dim, 1));
    expect(found["parameters"]).toMatchObject({ stored: expect.any(Number) });
    // The count by formula is the count of what lies in the file, but for the router's biases.
    const { stored } = found["parameters"] as { stored: number };
    expect(sizes.reduce((sum, size) => sum + size, 0) - stored).toBeLessThanOrEqual(16);
  });
});

describe("minke doctor", () => {
  test("--json tells backend, threads and a self-test that passes", async () => {
    const { code, stdout } = await minke(["doctor", "--json"], { cwd: folder });
    const found = lines(stdout)[0]!;
    expect(found).toMatchObject({
      "self-test": { isGood: true },
      threads: { value: expect.stringMatching(/^\d+$/) },
    });
    expect((found["backend"] as { value: string }).value).toMatch(/^(native|reference), because /);
    expect(code).toBe(0);
  });
});

describe("minke runs", () => {
  test("lists the runs with their figures, and compares two by the settings that differ", async () => {
    await trainedRun();
    await train("runs/b", "2");
    const listed = lines((await minke(["runs", "list", "--json"], { cwd: folder })).stdout);
    expect(listed).toMatchObject([
      { folder: "b", status: "completed", step: STEPS },
      { folder: "a", status: "completed", step: STEPS },
    ]);
    const { stdout } = await minke(["runs", "compare", "a", "b", "--json"], { cwd: folder });
    expect(lines(stdout)[0]).toMatchObject({ differences: [{ key: "seed", values: [1, 2] }] });
    const shown = await minke(["runs", "compare", "a", "b"], { cwd: folder });
    expect(shown.stdout).toContain("seed: 1  |  2");
    // As a shell completes them.
    const paths = ["runs/a", join(folder, "runs", "b/")];
    expect(await minke(["runs", "compare", ...paths], { cwd: folder })).toEqual(shown);
  });
});

describe("minke runs list", () => {
  test("says where it looked if there is nothing", async () => {
    const outcome = await minke(["runs", "list", "--root", "elsewhere"], { cwd: folder });
    expect(outcome).toEqual({
      code: 0,
      stdout: "",
      stderr: "there are no runs in elsewhere; --root names another folder\n",
    });
  });
});

describe("minke tokenizer", () => {
  test("trains, encodes and decodes back to the same text, from arguments and from standard input", async () => {
    const made = await minke(
      ["tokenizer", "train", "--data", "text.txt", "--vocab-size", "300", "--out", "bpe", "--json"],
      { cwd: folder },
    );
    expect(lines(made.stdout)[0]).toMatchObject({ path: "bpe/tokenizer.json", vocabSize: 300 });
    const text = "The whale sings: 鯨, naïve 🐋!";
    const flags = ["--tokenizer", "bpe"];
    const encoded = await minke(["tokenizer", "encode", ...flags, "--json", text], { cwd: folder });
    const ids = JSON.parse(encoded.stdout) as number[];
    expect(ids.length).toBeLessThan(Buffer.byteLength(text));
    const decoded = await minke(["tokenizer", "decode", ...flags, ...ids.map(String)], { cwd: folder });
    expect(decoded.stdout).toBe(`${text}\n`);
    const piped = await minke(["tokenizer", "encode", ...flags], { cwd: folder, input: text });
    expect(piped.stdout).toBe(`${ids.join(" ")}\n`);
    const back = await minke(["tokenizer", "decode", ...flags], { cwd: folder, input: piped.stdout });
    expect(back.stdout).toBe(`${text}\n`);
  });
});

describe("minke data", () => {
  test("prepare writes rows and an index that add up; inspect counts the same documents", async () => {
    const documents = Array.from({ length: 40 }, (_, i) => JSON.stringify({ text: sentences(5, i) }));
    await writeFile(join(folder, "documents.jsonl"), documents.join("\n"));
    const prepared = await minke(
      ["data", "prepare", "--data", "documents.jsonl", "--out", "rows", "--row-length", "64", "--json"],
      { cwd: folder },
    );
    const index = lines(prepared.stdout)[0]!;
    expect(index).toEqual(JSON.parse(await readFile(join(folder, "rows", "index.json"), "utf8")));
    expect(index).toMatchObject({ rowWidth: 65, train: { documents: 38 }, validation: { documents: 2 } });
    const { tokens } = index["train"] as { tokens: number };
    expect(index["padding"]).toBeCloseTo(1 - tokens / (Number(index["rows"]) * 65), 10);
    const inspected = await minke(["data", "inspect", "documents.jsonl", "--json"], { cwd: folder });
    const bytes = documents.reduce(
      (sum, line) => sum + Buffer.byteLength((JSON.parse(line) as { text: string }).text),
      0,
    );
    expect(lines(inspected.stdout)[0]).toMatchObject({ documents: 40, files: 1, skipped: 0, bytes });
  });
});
