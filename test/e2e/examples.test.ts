/** The programs in examples/ run as their first lines say, in the order of their names. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { builtEntry, type Outcome, startProgram } from "../support/minke.ts";
import { scratchFolder } from "../support/scratchFolder.ts";
import { writeTrainingText } from "../support/trainingText.ts";

const examples = join(import.meta.dirname, "..", "..", "examples");

async function run(name: string, args: readonly string[], cwd: string): Promise<Outcome> {
  await builtEntry();
  return startProgram(process.execPath, [join(examples, name), ...args], { cwd }).finished;
}

function numbers(line: string): number[] {
  return [...line.slice(line.indexOf("[")).matchAll(/-?\d+\.?\d*/g)].map(([digits]) => Number(digits));
}

test("01-tensor.ts prints what the same formulas give in plain arithmetic", async () => {
  const { code, stdout, stderr } = await run("01-tensor.ts", [], await scratchFolder());
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const w = Array.from({ length: 4 }, (_, n) => [0, 1, 2].map((k) => (3 * n + k) / 10));
  const x = [
    [1, 2, 3],
    [4, 5, 6],
  ];
  const dot = (a: readonly number[], b: readonly number[]): number =>
    a.reduce((sum, value, i) => sum + value * b[i]!, 0);
  const sigmoid = (z: number): number => 1 / (1 + Math.exp(-z));
  const y: number[] = [];
  const grad = w.map((row) => row.map(() => 0));
  for (const row of x) {
    for (const n of [0, 1]) {
      const [gate, up] = [dot(row, w[n]!), dot(row, w[n + 2]!)];
      y.push(gate * sigmoid(gate) * up);
      const slope = sigmoid(gate) * (1 + gate * (1 - sigmoid(gate)));
      for (const k of [0, 1, 2]) {
        grad[n]![k]! += slope * up * row[k]!;
        grad[n + 2]![k]! += gate * sigmoid(gate) * row[k]!;
      }
    }
  }
  const [printedY, printedGrad] = stdout
    .replaceAll(/\n\s+|\n\]/g, " ")
    .trim()
    .split("\n");
  for (const [i, value] of numbers(printedY!).entries()) expect(value).toBeCloseTo(y[i]!, 4);
  for (const [i, value] of numbers(printedGrad!).entries()) expect(value).toBeCloseTo(grad.flat()[i]!, 4);
  expect([numbers(printedY!).length, numbers(printedGrad!).length]).toEqual([4, 12]);
});

test("02-train.ts trains, and 03-generate.ts writes with what it made", async () => {
  const cwd = await scratchFolder();
  await writeTrainingText(cwd, 100);
  const trained = await run("02-train.ts", ["text.txt", "4"], cwd);
  expect(trained).toMatchObject({ code: 0, stderr: "" });
  expect(trained.stdout.match(/^step \d: loss \d/gm)).toHaveLength(4);
  expect(trained.stdout).toMatch(/^held out: \d/m);
  const [, folder] = /node examples\/03-generate\.ts (\S+)/.exec(trained.stdout)!;
  const written = await run("03-generate.ts", [folder!, "The whale"], cwd);
  expect(written).toMatchObject({ code: 0, stderr: "" });
  expect(written.stdout).toMatch(/^The whale[\s\S]+\n$/);
  expect(await run("03-generate.ts", ["nowhere"], cwd)).toMatchObject({ code: 1, stdout: "" });
});

test("each example is short and says how to run it", async () => {
  const names = (await readdir(examples)).filter((name) => name.endsWith(".ts"));
  expect(names.length).toBeGreaterThanOrEqual(3);
  for (const name of names) {
    const text = await readFile(join(examples, name), "utf8");
    expect(text.split("\n").length).toBeLessThanOrEqual(60);
    expect(text).toContain(`node examples/${name}`);
  }
});
