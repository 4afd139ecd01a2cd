/** Ranks that do not do the same things end with one message that says what was missed, soon, and with nothing left. */
import { describe, expect, test } from "vitest";
import { mpiFlavours, occurrences, startRanks } from "../support/mpirun.ts";

/** The start of everything included; by itself a wait would give up after 60 s. */
const SOON_MS = 40_000;

const ways: readonly [way: string, message: RegExp][] = [
  ["never", /rank 0 waited 1\.5 s for a message of rank 1 \(tag 7, 48 bytes\)/],
  ["leaves", /rank 1 left while rank 0 waited for a message of it \(tag 7, 48 bytes\)/],
  ["shorter", /rank 0 got 44 bytes from rank 1 \(tag 7\) where 48 were awaited/],
  ["longer", /rank 0 got more bytes from rank 1 \(tag 7\) than the 48 that were awaited/],
  ["gives up", /rank 1 of 2 on \S+ ends the job: its disk is full/],
  ["forgets", /rank 1 leaves with messages open: one from rank 0 \(tag 9\)/],
];

describe.each(mpiFlavours)("over %s", (flavour) => {
  test("a message that is posted when the job was left is refused at once", async () => {
    const { code, stdout, stderr } = await startRanks(2, "quarrel.ts", ["late"], { flavour }).finished;
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout.trimEnd().split("\n").toSorted()).toEqual(
      [0, 1].map((rank) => `postSend failed: rank ${rank} has left the job`),
    );
  });

  test.each(ways)("a rank that %s ends both with one message", async (way, message) => {
    const begin = performance.now();
    const job = startRanks(2, "quarrel.ts", [way], { flavour });
    const { code, stdout, stderr } = await job.finished;
    expect(code).not.toBe(0);
    expect(performance.now() - begin).toBeLessThan(SOON_MS);
    expect(stdout).not.toContain("heard");
    expect(stderr).toMatch(message);
    expect(occurrences(stderr, "ends the job: ")).toBe(1);
    expect(await job.survivors()).toEqual([]);
  });
});
