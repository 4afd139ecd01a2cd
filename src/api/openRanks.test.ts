import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { tinyTrainConfig } from "../../test/support/tinyTraining.ts";
import { ConfigError, UsageError } from "../base/index.ts";
import { type LaunchOptions, launchFlags, launchOf, requireFit } from "./openRanks.ts";

const data = { dp: 1, ep: 1, pp: 1, zero1: false, schedule: "dualpipe" };
const nothing = { layout: data, ranks: 1, ranksPerNode: null };

const variables = ["OMPI_COMM_WORLD", "PMI"].flatMap((name) => [`${name}_SIZE`, `${name}_RANK`]);
beforeEach(() => {
  for (const name of [...variables, "SLURM_STEP_NUM_TASKS"]) vi.stubEnv(name, undefined);
});
afterEach(() => {
  vi.unstubAllEnvs();
});

describe("launchOf", () => {
  test.each<[LaunchOptions, number | null, object | null]>([
    [{}, null, null],
    [{ zero1: false, trace: 2 }, null, null],
    [{ zero1: true }, null, { ...nothing, layout: { ...data, zero1: true } }],
    [{ ranks: 4 }, null, { ...nothing, layout: { ...data, dp: 4 }, ranks: 4 }],
    [{ layout: "dp=2,pp=3" }, null, { ...nothing, layout: { ...data, dp: 2, pp: 3 }, ranks: 6 }],
    [{ layout: "dp=4,ep=2" }, null, { ...nothing, layout: { ...data, dp: 4, ep: 2 }, ranks: 4 }],
    [{ ranksPerNode: 2 }, null, { ...nothing, ranksPerNode: 2 }],
    [{ ranks: 3, layout: "dp=2" }, null, { ...nothing, layout: { ...data, dp: 2 }, ranks: 3 }],
    [{}, 1, nothing],
    [{}, 8, { ...nothing, layout: { ...data, dp: 8 }, ranks: 8 }],
    [
      { layout: "pp=2", schedule: "1f1b" },
      2,
      { ...nothing, layout: { ...data, pp: 2, schedule: "1f1b" }, ranks: 2 },
    ],
  ])("makes of %j, with %j processes started, %j", (options, started, launch) => {
    expect(launchOf(options, started)).toEqual(launch);
  });

  test("refuses ranks of a process that is one of many, and text that is no layout", () => {
    expect(() => launchOf({ ranks: 2 }, 4)).toThrow(UsageError);
    expect(() => launchOf({ ranks: 2 }, 4)).toThrow("--ranks 2 is given, and mpirun has started 4");
    expect(() => launchOf({ layout: "tp=2" }, null)).toThrow('"tp=2" is no layout');
  });
});

/** What the command line makes of flags. */
function parsed(flags: string): LaunchOptions {
  const textOf = (name: string): string | undefined => new RegExp(` --${name} (\\S+)`).exec(flags)?.[1];
  const [ranks, layout, schedule, nodes] = ["ranks", "layout", "schedule", "ranks-per-node"].map(textOf);
  return {
    ...(ranks === undefined ? {} : { ranks: Number(ranks) }),
    ...(layout === undefined ? {} : { layout }),
    ...(schedule === undefined ? {} : { schedule: schedule as NonNullable<LaunchOptions["schedule"]> }),
    ...(nodes === undefined ? {} : { ranksPerNode: Number(nodes) }),
    zero1: / --zero1\b/.test(flags),
  };
}

test.each<LaunchOptions>([
  { schedule: "zb" },
  { schedule: "zb", ranks: 4 },
  { schedule: "dualpipe", layout: "dp=4,pp=1" },
])("a schedule without a pipeline would have no effect, and is refused: %j", (options) => {
  expect(() => launchOf(options, null)).toThrow(/given without a pipeline/);
});

describe("requireFit", () => {
  const { fp8 } = tinyTrainConfig();
  const scaled = tinyTrainConfig({
    precision: "fp8",
    fp8: { ...fp8, scaling: "tensor" },
    batchRows: 16,
    microBatchRows: 1,
    gradientShards: 4,
  });

  test("refuses one FP8 scale for what ranks share, before anything is opened", () => {
    for (const layout of ["dp=2,ep=2", "dp=2,ep=2,pp=2"]) {
      const launch = launchOf({ layout }, null);
      expect(() => requireFit(launch, scaled)).toThrow(ConfigError);
      expect(() => requireFit(launch, scaled)).toThrow(/one scale for a whole tensor[\s\S]*fp8.scaling=tile/);
      const tiles = { ...scaled, fp8 };
      requireFit(launch, tiles);
      requireFit(launch, { ...scaled, precision: "bf16" });
    }
    requireFit(launchOf({ layout: "dp=2,pp=2" }, null), scaled);
  });

  test("refuses experts that do not divide over the ranks of a pipeline's stage", () => {
    const uneven = tinyTrainConfig(
      { batchRows: 32, microBatchRows: 1, gradientShards: 16 },
      { nRoutedExperts: 12 },
    );
    expect(() => requireFit(launchOf({ layout: "dp=8,ep=8,pp=2" }, null), uneven)).toThrow(
      /12 routed experts cannot be shared by 8 ranks/,
    );
  });
});

describe("launchFlags", () => {
  const count = fc.integer({ min: 1, max: 64 });
  const anyLaunch = fc
    .record({
      ...{ dp: count, ep: count, pp: count, zero1: fc.boolean() },
      schedule: fc.constantFrom("1f1b", "zb", "dualpipe", "dualpipev"),
      ranksPerNode: fc.option(count),
    })
    .map(({ ranksPerNode, ...said }) => {
      // A schedule says nothing where there is no pipeline.
      const layout = { ...said, schedule: said.pp > 1 ? said.schedule : "dualpipe" } as const;
      return { layout, ranks: said.dp * said.pp, ranksPerNode };
    });

  test.each([false, true])("say the same launch again; under a launcher: %j", (isLaunched) => {
    fc.assert(
      fc.property(anyLaunch, (launch) => {
        vi.stubEnv("OMPI_COMM_WORLD_SIZE", isLaunched ? String(launch.ranks) : undefined);
        vi.stubEnv("OMPI_COMM_WORLD_RANK", isLaunched ? "0" : undefined);
        const flags = launchFlags(launch);
        expect(flags.includes("--ranks ")).toBe(!isLaunched);
        expect(launchOf(parsed(flags))).toEqual(launch);
      }),
    );
  });

  test("are none for one rank alone, and no more than is needed", () => {
    expect(launchFlags(null)).toBe("");
    expect(launchFlags(launchOf({ layout: "dp=4" }))).toBe(" --ranks 4");
    expect(launchFlags(launchOf({ layout: "pp=2", zero1: true }))).toBe(
      " --ranks 2 --layout dp=1,ep=1,pp=2 --schedule dualpipe --zero1",
    );
  });
});
