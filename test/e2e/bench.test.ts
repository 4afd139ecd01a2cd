/** `minke bench` as a user and as another program run it; the smallest preset, few rounds: no figure is judged here. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { minke } from "../support/minke.ts";
import { nativeIsMissing } from "../support/native.ts";
import { scratchFolder } from "../support/scratchFolder.ts";

function jsonLines(text: string): Record<string, unknown>[] {
  return text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
}

describe.skipIf(nativeIsMissing)("minke bench", () => {
  test("serve is ready, then answers steps, the peak and what it cannot read, and ends with its input", async () => {
    const cwd = await scratchFolder();
    const input = "step 2\npeak 0.01\nstep none\n";
    const { stdout, code } = await minke(["bench", "serve", "--preset", "micro"], { cwd, input });
    const [ready, step, peak, wrong, ...rest] = jsonLines(stdout);
    expect(ready).toMatchObject({ ready: true, tokensPerStep: 2048, parameters: 2_166_416 });
    expect(step).toMatchObject({ tokens: 4096, seconds: expect.any(Number), loss: expect.any(Number) });
    expect(step!["peakRssBytes"]).toBeGreaterThan(5e7);
    expect(peak!["flopsPerSecond"]).toBeGreaterThan(1e8);
    expect(wrong).toEqual({ error: 'cannot read "step none": say "step N", "peak SECONDS" or "quit"' });
    expect([rest, code]).toEqual([[], 0]);
  });

  test("step --trace prints a row per op and writes a Chrome trace in which every kind of op occurs", async () => {
    const cwd = await scratchFolder();
    const args = ["bench", "step", "--preset", "micro", "--rounds", "1", "--trace", "trace.json", "--json"];
    const { stdout, code } = await minke(args, { cwd });
    expect(code).toBe(0);
    const [step, ...rows] = jsonLines(stdout);
    expect(step).toMatchObject({ bench: "step", preset: "micro", rounds: 1 });
    const ops = rows.filter(({ calls }) => calls !== undefined).map(({ name }) => name);
    expect(ops).toEqual(expect.arrayContaining(["matmul", "groupedMatmul", "attentionBackward", "adamw"]));
    expect(rows.reduce((sum, row) => sum + (row["trace"] ? 0 : Number(row["stepShare"])), 0)).toBeCloseTo(
      1,
      6,
    );
    const { traceEvents } = JSON.parse(await readFile(join(cwd, "trace.json"), "utf8"));
    const phases = new Set(traceEvents.map(({ args: given }: { args?: { phase?: string } }) => given?.phase));
    expect([...phases]).toEqual(expect.arrayContaining(["forward", "backward", "norm", "update"]));
    expect(traceEvents.filter(({ tid }: { tid: number }) => tid === 3).length).toBeGreaterThan(5);
  });

  test("costs prints what each part costs beside what it should, over steps that were measured in turns", async () => {
    const args = ["bench", "costs", "--preset", "micro", "--rounds", "2", "--json"];
    const { stdout, code } = await minke(args, { cwd: await scratchFolder() });
    const rows = jsonLines(stdout);
    expect([code, rows.length]).toEqual([0, 9]);
    const [mtp, recomputation, routing, experts, ...steps] = rows;
    // One layer more and the head once more, over one dense layer, one of experts and the head.
    expect(mtp!["flopsShare"]).toBeGreaterThan(0.4);
    expect(recomputation!["savedShare"]).toBeGreaterThan(0.35);
    expect(routing!["busiestOverEven"]).toBeGreaterThan(1);
    expect(experts!["tokensShare"]).toBeGreaterThan(0);
    for (const { seconds, tokensPerSecond } of steps)
      expect(Number(seconds) * Number(tokensPerSecond)).toBeCloseTo(2048, 6);
    // The figures follow from the rows below them.
    const [whole, withoutMtp] = steps.map(({ seconds }) => Number(seconds));
    expect(mtp!["timeShare"]).toBeCloseTo(whole! / withoutMtp! - 1, 9);
  });

  test("costs of a model without experts are refused", async () => {
    const args = ["bench", "costs", "--preset", "dense-124m"];
    const { stderr, code } = await minke(args, { cwd: await scratchFolder() });
    expect(stderr).toContain("dense-124m has no experts or no MTP");
    expect(code).toBe(1);
  });

  test("a model that nobody can train here is refused in three lines", async () => {
    const { stderr, code } = await minke(["bench", "step", "--preset", "v3-671b"], {
      cwd: await scratchFolder(),
    });
    expect(stderr).toContain("the models that train here are micro, nano, mini, dense-124m");
    expect(code).toBe(1);
  });
});
