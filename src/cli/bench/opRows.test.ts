import { describe, expect, test } from "vitest";
import type { TracedCommand } from "../../tensor/index.ts";
import { leastTimes } from "./opRows.ts";
import { OPS_HEADER, rowText, TRACE_HEADER } from "./row.ts";

function run(...commands: readonly (readonly [op: string, begin: number, end: number])[]): TracedCommand[] {
  return commands.map(([op, begin, end]) => ({
    ...{ op, label: "", mark: "", message: null },
    ...{ begin, end, flops: 1, bytes: 1 },
  }));
}

describe("leastTimes", () => {
  test("takes each command from the run in which it was fastest", () => {
    const first = run(["matmul", 0, 50], ["add", 60, 70]);
    const second = run(["matmul", 100, 120], ["add", 120, 150]);
    expect(leastTimes([first, second])).toEqual([second[0], first[1]]);
    expect(leastTimes([second, first])).toEqual([second[0], first[1]]);
  });

  test("refuses runs that are not of the same commands", () => {
    expect(() => leastTimes([run(["matmul", 0, 1]), run(["add", 0, 1])])).toThrow("the same commands");
    expect(() => leastTimes([run(["add", 0, 1]), run()])).toThrow("the same commands");
  });
});

describe("rowText", () => {
  const figures = { calls: 3, gflops: null, peakShare: null, gigabytesPerSecond: 12.34 };

  test("an op's figures stand under their titles, a dash where there is none", () => {
    const line = rowText({
      bench: "ops",
      name: "add",
      program: "training step",
      microseconds: 7,
      ...figures,
    });
    const at = (title: string): string => {
      const end = OPS_HEADER.indexOf(title) + title.length;
      return line.slice(end - 10, end).trim();
    };
    expect(["us a call", "calls", "GFLOP/s", "of peak", "GB/s"].map(at)).toEqual([
      "7.0",
      "3",
      "-",
      "-",
      "12.3",
    ]);
    expect(line.endsWith("training step")).toBe(true);
  });

  test("a traced op's line is as long as its header, with its share of the step", () => {
    const line = rowText({ bench: "trace", name: "add", milliseconds: 2, stepShare: 0.25, ...figures });
    expect(line).toHaveLength(TRACE_HEADER.length);
    expect(line).toMatch(/^add +2\.00 +25\.0% +3 /);
  });
});
