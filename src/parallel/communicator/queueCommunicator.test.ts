import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { disposeRanks, makeRanks, onRanks, rankBackends } from "../../../test/support/ranks.ts";
import { CollectiveError, ConfigError } from "../../base/index.ts";
import { copyInto, fill, Recording, type Tensor } from "../../tensor/index.ts";
import { allGather, barrier } from "./collectives.ts";
import type { Communicator, Pending } from "./communicator.ts";
import { everyRank } from "./everyRank.ts";
import { inProcess } from "./inProcess.ts";
import { treeSum } from "./sums.ts";
import { Tickets } from "./tickets.ts";

const numbers = async (tensor: Tensor): Promise<number[]> => Array.from(await tensor.read());

/** One exchange of a random program: who sends what to whom, and how many exchanges later it is awaited. */
interface Step {
  readonly messages: readonly { readonly from: number; readonly to: number; readonly length: number }[];
  readonly tag: number;
  readonly delay: number;
}

function stepsFor(ranks: number): fc.Arbitrary<Step[]> {
  const rank = fc.nat(ranks - 1);
  const message = fc.record({ from: rank, to: rank, length: fc.nat(40) });
  const step = fc.record({
    messages: fc.array(message, { maxLength: 6 }),
    tag: fc.nat(2),
    delay: fc.nat(3),
  });
  return fc.array(step, { minLength: 100, maxLength: 100 });
}

/** The numbers that travel: no two messages of a program have the same. */
function content(step: number, message: number, length: number): number[] {
  return Array.from({ length }, (_, i) => step * 1000 + message * 50 + i);
}

/** Runs one rank's part of a program and says which messages were wrong. */
async function runProgram(communicator: Communicator, steps: readonly Step[]): Promise<string[]> {
  const { rank, device } = communicator;
  const open: { readonly until: number; readonly pending: Pending }[] = [];
  const received: { readonly name: string; readonly y: Tensor; readonly wanted: number[] }[] = [];
  for (const [s, { messages, tag, delay }] of steps.entries()) {
    const sends = [];
    const receives = [];
    for (const [m, { from, to, length }] of messages.entries()) {
      const wanted = content(s, m, length);
      if (from === rank) {
        const x = device.temporary([length], "f32");
        x.write(wanted);
        sends.push({ to, x });
      }
      if (to !== rank) continue;
      const y = device.temporary([length], "f32");
      fill(y, -1);
      receives.push({ from, y });
      received.push({ name: `step ${s} message ${m}`, y, wanted });
    }
    const pending = communicator.exchange(sends, receives, tag);
    // The exchange holds what it needs: its tensors may go before they have left.
    for (const { x } of sends) x.dispose();
    open.push({ until: s + delay, pending });
    for (const due of open.filter(({ until }) => until <= s)) {
      due.pending.wait();
      open.splice(open.indexOf(due), 1);
    }
  }
  for (const { pending } of open) pending.wait();
  const found = received.map(({ y }) => numbers(y));
  for (const { y } of received) y.dispose();
  const wrong: string[] = [];
  for (const [i, { name, wanted }] of received.entries()) {
    if (JSON.stringify(await found[i]) !== JSON.stringify(wanted)) wrong.push(name);
  }
  return wrong;
}

describe.each(rankBackends)("a communicator over %s queues", (backend) => {
  test("brings every message of 10,000 random exchanges to its place, and keeps no memory", async () => {
    const programs = fc
      .integer({ min: 1, max: 6 })
      .chain((ranks) => fc.tuple(fc.constant(ranks), stepsFor(ranks)));
    await fc.assert(
      fc.asyncProperty(programs, async ([ranks, steps]) => {
        const results = await onRanks(backend, ranks, async (communicator) => {
          const wrong = await runProgram(communicator, steps);
          await communicator.device.drain();
          return { wrong, live: communicator.device.arena.liveBytes };
        });
        for (const result of results) expect(result).toEqual({ wrong: [], live: 0 });
      }),
      { numRuns: 100, seed: 5 },
    );
  }, 120_000);

  test("splits into groups whose messages never meet, and splits again", async () => {
    const results = await onRanks(backend, 6, async (world) => {
      const { rank, device } = world;
      // Two rows of three, three columns of two, as expert and pipeline groups cross.
      const row = world.split(rank < 3 ? [0, 1, 2] : [3, 4, 5]);
      const column = world.split([rank % 3, (rank % 3) + 3]);
      const pair = row.rank < 2 ? row.split([1, 0]) : row.split([2]);
      const x = device.from([rank], [1], "f32");
      const ranks = [row.rank, row.size, column.rank, column.size, pair.rank, pair.size];
      const [mine, sums] = [[] as Tensor[], [] as Tensor[]];
      // Ranks go through their groups in different orders: only the groups' own tags keep them apart.
      const groups = rank % 2 === 0 ? [row, column] : [column, row];
      const pendings = groups.map((group) => {
        const y = device.temporary([1], "f32");
        (group === row ? mine : sums).push(y);
        const [to, from] = [(group.rank + 1) % group.size, (group.rank + group.size - 1) % group.size];
        return group.exchange([{ to, x }], [{ from, y }]);
      });
      for (const pending of pendings) pending.wait();
      const inPair = allGather(pair, x);
      return [ranks, await numbers(mine[0]!), await numbers(sums[0]!), await numbers(inPair)];
    });
    expect(results[0]).toEqual([[0, 3, 0, 2, 1, 2], [2], [3], [1, 0]]);
    expect(results[4]).toEqual([[1, 3, 1, 2, 0, 2], [3], [1], [4, 3]]);
    expect(results[5]).toEqual([[2, 3, 1, 2, 0, 1], [4], [2], [5]]);
  });

  test("keeps groups of the same ranks apart, whatever the order in which a rank uses them", async () => {
    const results = await onRanks(backend, 2, async (world) => {
      const { rank, device } = world;
      const groups = [world, world.split([0, 1]), world.split([0, 1])];
      const posted = (rank === 0 ? [0, 1, 2] : [2, 0, 1]).map((g) => {
        const [x, y] = [device.from([10 * g + rank], [1], "f32"), device.from([-1], [1], "f32")];
        return { y, pending: groups[g]!.exchange([{ to: 1 - rank, x }], [{ from: 1 - rank, y }]) };
      });
      for (const { pending } of posted) pending.wait();
      return (await Promise.all(posted.map(({ y }) => numbers(y)))).flat();
    });
    expect(results).toEqual([
      [1, 11, 21],
      [20, 0, 10],
    ]);
  });

  test("holds what it exchanges until the await, whoever lets go of it", async () => {
    const live = await onRanks(backend, 1, async (communicator) => {
      const { device } = communicator;
      const before = device.arena.liveCount;
      const [x, y] = [device.temporary([1], "f32"), device.temporary([1], "f32")];
      const pending = communicator.exchange([{ to: 0, x }], [{ from: 0, y }]);
      x.dispose();
      y.dispose();
      const during = device.arena.liveCount - before;
      pending.wait();
      await device.drain();
      return [during, device.arena.liveCount - before];
    });
    expect(live).toEqual([[2, 0]]);
  });

  test("is replayed while a message is in flight that the recording did not know", async () => {
    const results = await onRanks(
      backend,
      2,
      async (communicator) => {
        const { rank, device } = communicator;
        const [x, sum, late] = [0, 1, 2].map(() => device.from([0], [1], "f32"));
        const recording = new Recording(device, () => {
          copyInto(x!, sum!);
          treeSum(communicator, sum!);
        });
        const found: number[] = [];
        for (const value of [1, 2, 3]) {
          x!.write([value + 10 * rank]);
          // Rank 0 waits from before the replay for what rank 1 sends after it: its sum must not wait for that too.
          const receiving =
            rank === 0 && value > 1 ? communicator.exchange([], [{ from: 1, y: late! }], 9) : null;
          recording.run();
          if (rank === 1 && value > 1) communicator.exchange([{ to: 0, x: sum! }], [], 9).wait();
          receiving?.wait();
          found.push(...(await numbers(sum!)), ...(await numbers(late!)));
        }
        return found;
      },
      { timeoutSeconds: 10 },
    );
    expect(results).toEqual([
      [12, 0, 14, 14, 16, 16],
      [12, 0, 14, 0, 16, 0],
    ]);
  });

  test("ends all ranks with the error of the one that threw", async () => {
    const started = performance.now();
    const running = onRanks(backend, 3, async (communicator) => {
      if (communicator.rank === 1) throw new RangeError("rank one has a bad day");
      await barrier(communicator);
    });
    await expect(running).rejects.toThrow(new RangeError("rank one has a bad day"));
    expect(performance.now() - started).toBeLessThan(30_000);
  });

  test("tells a rank that waits who has aborted and why", async () => {
    const ranks = makeRanks(backend, 2);
    const waiting = barrier(ranks[0]!);
    ranks[1]!.abort("it ran out of memory");
    await expect(waiting).rejects.toThrow(/rank 1 failed: it ran out of memory/);
    await disposeRanks(ranks);
  });
});

describe("a communicator", () => {
  const [alone] = inProcess(1, { backend: "reference", limitBytes: 2 ** 20 });
  const four = makeRanks("reference", 4);

  test("refuses ranks and tags that it does not have", () => {
    const x = alone!.device.temporary([1], "f32");
    expect(() => alone!.exchange([{ to: 1, x }], [])).toThrow(/rank 0 exchanges with rank 1 of 1/);
    expect(() => alone!.exchange([], [{ from: -1, y: x }])).toThrow(CollectiveError);
    expect(() => alone!.exchange([], [], 256)).toThrow(/tag 256 is asked for/);
  });

  test("refuses a group without the rank itself, with a rank twice, or with a stranger", () => {
    expect(() => four[1]!.split([0, 2])).toThrow(/rank 1 splits into the group \[0, 2\]/);
    expect(() => four[1]!.split([1, 1])).toThrow(/every rank of it once/);
    expect(() => four[1]!.split([1, 4])).toThrow(/exchanges with rank 4 of 4/);
  });

  test("refuses more splits than its tags have room for", () => {
    for (let i = 0; i < 15; i++) four[2]!.split([2]);
    expect(() => four[2]!.split([2])).toThrow(/split 16 times/);
    let deep: Communicator = four[3]!;
    const goDeeper = (): void => {
      deep = deep.split([deep.rank]);
    };
    for (let i = 0; i < 4; i++) goDeeper();
    expect(goDeeper).toThrow(/four deep/);
  });

  test("is awaited once for each exchange", () => {
    const pending = alone!.exchange([], []);
    pending.wait();
    expect(() => pending.wait()).toThrow(/an exchange is awaited twice/);
  });

  test("is made for one rank or more", () => {
    for (const ranks of [0, -1, 1.5]) {
      expect(() => inProcess(ranks, { backend: "reference", limitBytes: 1 })).toThrow(ConfigError);
    }
  });

  test("everyRank returns what each rank returns, in their order", async () => {
    const later = (rank: number): Promise<number> =>
      new Promise((resolve) => setTimeout(resolve, 9 - 3 * rank, rank));
    expect(await everyRank(four.slice(0, 3), ({ rank }) => later(rank))).toEqual([0, 1, 2]);
  });
});

describe("tickets", () => {
  test("are the smallest free numbers, with others for what is recorded", () => {
    const tickets = new Tickets();
    expect([tickets.take(false), tickets.take(false), tickets.take(true), tickets.take(true)]).toEqual([
      0,
      1,
      2 ** 16,
      2 ** 16 + 1,
    ]);
    tickets.giveBack(0);
    tickets.giveBack(2 ** 16);
    expect([tickets.take(false), tickets.take(false), tickets.take(true)]).toEqual([0, 2, 2 ** 16]);
  });
});
