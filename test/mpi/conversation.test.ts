/** Whatever ranks say to one another over MPI, they hear what ranks of one process hear. */
import { describe, expect, test } from "vitest";
import { everyRank, inProcess } from "../../src/parallel/index.ts";
import { mpiFlavours, startRanks } from "../support/mpirun.ts";
import { converse } from "./conversation.ts";

const LIMIT = 2 ** 28;

async function inOneProcess(ranks: number, seed: number): Promise<string[]> {
  const communicators = inProcess(ranks, { backend: "native", limitBytes: LIMIT, threads: 1 });
  const digests = await everyRank(communicators, (communicator) => converse(communicator, seed));
  for (const { device } of communicators) await device.dispose();
  return digests;
}

describe.each(mpiFlavours)("over %s", (flavour) => {
  test.each([1, 2, 4])("%i ranks hear what ranks of one process hear", async (ranks) => {
    const expected = await inOneProcess(ranks, 17);
    const { code, stdout, stderr } = await startRanks(ranks, "converse.ts", ["17"], { flavour }).finished;
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const heard = stdout
      .trimEnd()
      .split("\n")
      .map((line): { rank: number; digest: string } => JSON.parse(line));
    expect(heard.toSorted((a, b) => a.rank - b.rank)).toEqual(
      expected.map((digest, rank) => ({ rank, digest })),
    );
  });
});

test("the digest tells different words apart", async () => {
  expect(await inOneProcess(2, 18)).not.toEqual(await inOneProcess(2, 19));
});
