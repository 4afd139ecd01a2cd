/** The command line where MPI is. */
import { describe, expect, test } from "vitest";
import { builtMpiAddons } from "../../src/parallel/index.ts";
import { builtEntry, minke } from "../support/minke.ts";
import { mpiFlavours, occurrences, startRanks } from "../support/mpirun.ts";
import { nativeIsMissing } from "../support/native.ts";
import { scratchFolder } from "../support/scratchFolder.ts";

const SIZES = [1, 16, 64, 256, 1024, 4096, 16384];

test.skipIf(nativeIsMissing)(
  "bench messages measures every size between two queues of one process",
  async () => {
    const cwd = await scratchFolder();
    const { code, stdout } = await minke(["bench", "messages", "--rounds", "1", "--json"], { cwd });
    expect(code).toBe(0);
    expect(names(stdout)).toEqual(SIZES.map((size) => `${size} KB in one process`));
  },
);

describe.each(mpiFlavours)("under %s's mpirun", (flavour) => {
  test("bench messages measures two processes, and rank 0 alone prints", async () => {
    const args = ["bench", "messages", "--rounds", "1", "--json"];
    const { code, stdout, stderr } = await startRanks(3, await builtEntry(), args, { flavour }).finished;
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(names(stdout)).toEqual(
      SIZES.map((size) => expect.stringMatching(new RegExp(`^${size} KB by \\w`))),
    );
  });
});

// MPICH's launcher does not end ranks that have not yet met through MPI: there every rank says it.
test.skipIf(!mpiFlavours.includes("openmpi"))("a wrong flag is told once for all ranks", async () => {
  const job = startRanks(3, await builtEntry(), ["train", "--prest", "nano"]);
  const { code, stderr } = await job.finished;
  expect(code).not.toBe(0);
  expect(occurrences(stderr, "minke: ")).toBe(1);
  expect(stderr).toContain("--preset");
  expect(await job.survivors()).toEqual([]);
});

test.each(mpiFlavours.slice(0, 1))("bench messages with one rank of %s is refused", async (flavour) => {
  const { code, stderr } = await startRanks(1, await builtEntry(), ["bench", "messages"], { flavour })
    .finished;
  expect(code).not.toBe(0);
  expect(stderr).toContain("it takes two to throw a ball");
});

test("doctor names the MPI libraries, or what to install", async () => {
  const { stdout } = await minke(["doctor"], { cwd: await scratchFolder() });
  const line = stdout.split("\n").find((text) => /^ok {3}MPI/.test(text)) ?? "";
  const isBuilt = builtMpiAddons(null).length > 0;
  expect(line).toMatch(isBuilt ? /Open MPI v|MPICH Version/ : /apt install openmpi-bin/);
});

function names(stdout: string): string[] {
  return stdout
    .trimEnd()
    .split("\n")
    .map((line): { name: string } => JSON.parse(line))
    .map(({ name }) => name);
}
