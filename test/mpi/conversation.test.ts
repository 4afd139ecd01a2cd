/** Whatever ranks say to one another over MPI, they hear what ranks of one process hear. */
import { spawnSync } from "node:child_process";
import { globSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { everyRank, inProcess, type MpiFlavour } from "../../src/parallel/index.ts";
import { mpiFlavours, startRanks } from "../support/mpirun.ts";
import { nativeIsMissing } from "../support/native.ts";
import { scratchFolder } from "../support/scratchFolder.ts";
import { converse } from "./conversation.ts";

const LIMIT = 2 ** 28;

async function inOneProcess(ranks: number, seed: number): Promise<string[]> {
  const communicators = inProcess(ranks, { backend: "native", limitBytes: LIMIT, threads: 1 });
  const digests = await everyRank(communicators, (communicator) => converse(communicator, seed));
  for (const { device } of communicators) await device.dispose();
  return digests;
}

async function overMpi(ranks: number, flavour: MpiFlavour, args: readonly string[]): Promise<string[]> {
  const { code, stdout, stderr } = await startRanks(ranks, "converse.ts", args, { flavour }).finished;
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const lines = stdout.trimEnd().split("\n");
  const heard = lines.map((line): { rank: number; digest: string } => JSON.parse(line));
  return heard.toSorted((a, b) => a.rank - b.rank).map(({ digest }) => digest);
}

describe.each(mpiFlavours)("over %s", (flavour) => {
  test.each([1, 2, 4])("%i ranks hear what ranks of one process hear", async (ranks) => {
    const expected = await inOneProcess(ranks, 17);
    expect(await overMpi(ranks, flavour, ["17"])).toEqual(expected);
  });

  test("messages cut into pieces arrive whole", async () => {
    const folder = await scratchFolder();
    // As messages of more than 1 GiB are cut, which are too large for a test.
    const script = join(import.meta.dirname, "..", "..", "scripts", "build-mpi.js");
    const { status } = spawnSync(process.execPath, [script, folder, "-DPIECE_BYTES=1000"]);
    expect(status).toBe(0);
    const addon = globSync(join(folder, `*${flavour}*.node`))[0]!;
    expect(await overMpi(2, flavour, ["23", addon])).toEqual(await inOneProcess(2, 23));
  });
});

test.skipIf(nativeIsMissing)("the digest tells different words apart", async () => {
  expect(await inOneProcess(2, 18)).not.toEqual(await inOneProcess(2, 19));
});
