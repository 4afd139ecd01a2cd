/** `minke bench` as a user and as another program run it; the smallest preset, few rounds: no figure is judged here. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { allKernels } from "../../src/tensor/ops/kernels.ts";
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

  test("step --trace prints a row per op of the fastest of five steps, and writes that step as a Chrome trace", async () => {
    const cwd = await scratchFolder();
    const args = ["bench", "step", "--preset", "micro", "--rounds", "1", "--trace", "trace.json", "--json"];
    const { stdout, code } = await minke(args, { cwd });
    expect(code).toBe(0);
    const [step, ...rows] = jsonLines(stdout);
    expect(step).toMatchObject({ bench: "step", preset: "micro", rounds: 1 });
    const ops = rows.filter(({ calls }) => typeof calls === "number");
    expect(ops.map(({ name }) => name)).toEqual(
      expect.arrayContaining(["matmul", "groupedMatmul", "attentionBackward", "adamw"]),
    );
    const [between, total] = rows.slice(-2);
    expect([between!["name"], total!["name"]]).toEqual(["between ops", "fastest of 5 traced steps"]);
    expect(total!["medianMilliseconds"]).toBeGreaterThanOrEqual(Number(total!["milliseconds"]));
    const parts = [...ops, between!];
    expect(parts.reduce((sum, row) => sum + Number(row["stepShare"]), 0)).toBeCloseTo(1, 6);
    for (const { milliseconds, stepShare } of parts)
      expect(Number(milliseconds) / Number(total!["milliseconds"])).toBeCloseTo(Number(stepShare), 9);
    const { traceEvents } = JSON.parse(await readFile(join(cwd, "trace.json"), "utf8"));
    const named = (tid: number) =>
      traceEvents.filter((event: { ph: string; tid: number }) => event.ph === "X" && event.tid === tid);
    expect(named(1)).toHaveLength(ops.reduce((sum, { calls }) => sum + Number(calls), 0));
    expect(named(2).map(({ name }: { name: string }) => name)).toEqual([
      "zero",
      "forward",
      "backward",
      "norm",
      "update",
    ]);
    expect(named(3)).toHaveLength(2);
  });

  test("kernels has a row for every op that there is", async () => {
    const args = ["bench", "kernels", "--preset", "micro", "--rounds", "1", "--json"];
    const { stdout, code } = await minke(args, { cwd: await scratchFolder() });
    expect(code).toBe(0);
    const ops = jsonLines(stdout).filter(({ bench }) => bench === "ops");
    expect(ops.map(({ name }) => name).sort()).toEqual(allKernels.map(({ name }) => name).sort());
    for (const { microseconds, gigabytesPerSecond } of ops) {
      expect(microseconds).toBeGreaterThan(0);
      expect(gigabytesPerSecond).toBeGreaterThan(0);
    }
  });

  test("costs prints what each part costs beside what it should, over steps that were measured in turns", async () => {
    const args = ["bench", "costs", "--preset", "micro", "--rounds", "2", "--json"];
    const { stdout, code } = await minke(args, { cwd: await scratchFolder() });
    const rows = jsonLines(stdout);
    expect([code, rows.length]).toEqual([0, 11]);
    const [mtp, recomputation, routing, fp8, experts, ...steps] = rows;
    // One layer more and the head once more, over one dense layer, one of experts and the head.
    expect(mtp!["flopsShare"]).toBeGreaterThan(0.4);
    expect(recomputation!["savedShare"]).toBeGreaterThan(0.33);
    expect(routing!["busiestOverEven"]).toBeGreaterThan(1);
    expect(fp8!["weightBytesShare"]).toBeLessThan(0.6);
    expect(fp8!["cachedBytesShare"]).toBeLessThan(0.65);
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
