import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { advanceRanks } from "./advance.ts";
import { answeredAt, neededBy, sentBy } from "./answers.ts";
import { type PipelinePlan, type Schedule, stageOf } from "./plan.ts";
import { planSchedule, schedules } from "./planSchedule.ts";

/** Plans of a schedule with 1 to 5 ranks (DualPipe: 2, 4 or 6), from the fewest micro-batches on. */
function anyPlan(schedule: Schedule): fc.Arbitrary<PipelinePlan> {
  const sizes = fc.record({
    count: fc.integer({ min: 1, max: schedule === "dualpipe" ? 3 : 5 }),
    more: fc.nat({ max: 5 }),
  });
  return sizes.map(({ count, more }) => {
    if (schedule === "dualpipe") {
      return planSchedule(schedule, { ranks: 2 * count, microBatches: 4 * count + 2 * more });
    }
    const fewest = schedule === "dualpipev" ? 2 * count : 1;
    return planSchedule(schedule, { ranks: count, microBatches: fewest + more });
  });
}

/** By rank and action, what it sends or needs, as text. */
function texts(plan: PipelinePlan, of: typeof sentBy): readonly (readonly (readonly string[])[])[] {
  return plan.actions.map((actions, rank) =>
    actions.map((action) => of(plan, rank, action).map((message) => JSON.stringify(message))),
  );
}

/**
 * Runs a plan where a wait for a send ends when its receiver has begun the action that reads it.
 *
 * @param awaitedAfter  of which actions a rank awaits the sends, when it has done the action
 * @returns             whether every rank comes to its end
 */
function ends(plan: PipelinePlan, awaitedAfter: (rank: number, index: number) => readonly number[]): boolean {
  const [sends, needs] = [texts(plan, sentBy), texts(plan, neededBy)];
  const sent = new Set<string>();
  const read = new Set<string>();
  const awaited = plan.actions.map((): readonly string[] => []);
  const done = plan.actions.map(() => 0);
  const isFree = (rank: number): boolean => awaited[rank]!.every((message) => read.has(message));
  advanceRanks(plan.ranks, (rank) => {
    const index = done[rank]!;
    const needed = needs[rank]![index];
    if (needed === undefined || !isFree(rank) || !needed.every((message) => sent.has(message))) return false;
    for (const message of needed) read.add(message);
    for (const message of sends[rank]![index]!) sent.add(message);
    awaited[rank] = awaitedAfter(rank, index).flatMap((earlier) => sends[rank]![earlier]!);
    done[rank] = index + 1;
    return true;
  });
  return done.every((count, rank) => count === plan.actions[rank]!.length && isFree(rank));
}

/** By rank and action: how many actions of each rank must have begun when this one has its needs. */
function pasts(plan: PipelinePlan): readonly (readonly (readonly number[])[])[] {
  const [sends, needs] = [texts(plan, sentBy), texts(plan, neededBy)];
  const past: number[][][] = plan.actions.map(() => []);
  const sent = new Map<string, readonly number[]>();
  advanceRanks(plan.ranks, (rank) => {
    const index = past[rank]!.length;
    const sources = needs[rank]![index]?.map((message) => sent.get(message));
    if (sources === undefined || sources.includes(undefined)) return false;
    const own = plan.actions.map((_, of) => (of === rank ? index + 1 : (past[rank]!.at(-1)?.[of] ?? 0)));
    const merged = own.map((count, of) => Math.max(count, ...sources.map((source) => source![of]!)));
    past[rank]!.push(merged);
    for (const message of sends[rank]![index]!) sent.set(message, merged);
    return true;
  });
  return past;
}

describe.each(schedules)("%s", (schedule) => {
  test("sends each message once, to the stage where it goes, whose rank needs it in one action", () => {
    const property = fc.property(anyPlan(schedule), (plan) => {
      const sent = texts(plan, sentBy).flat(2);
      expect(new Set(sent).size).toBe(2 * (plan.stages - 1) * plan.microBatches);
      expect(texts(plan, neededBy).flat(2).toSorted()).toEqual(sent.toSorted());
      for (const [rank, actions] of plan.actions.entries()) {
        const out = actions.flatMap((action) => sentBy(plan, rank, action));
        const steps = out.map(
          ({ to, from, receiver }) =>
            stageOf(plan, { rank: receiver, chunk: to }) - stageOf(plan, { rank, chunk: from }),
        );
        expect(steps).toEqual(out.map(({ kind }) => (kind === "activation" ? 1 : -1)));
        expect(out.map(({ to }) => to.microBatch)).toEqual(out.map(({ from }) => from.microBatch));
        expect(out.every(({ sender }) => sender === rank)).toBe(true);
        const into = actions.flatMap((action) => neededBy(plan, rank, action));
        expect(into.every(({ receiver }) => receiver === rank)).toBe(true);
      }
    });
    fc.assert(property, { numRuns: 15 });
  });

  test("has sends answered, once at most, by the first action that cannot begin before they are read", () => {
    const property = fc.property(anyPlan(schedule), (plan) => {
      const past = pasts(plan);
      const reads = texts(plan, neededBy).flatMap((lists, receiver) =>
        lists.flatMap((list, at) => list.map((message) => [message, { receiver, at }] as const)),
      );
      const readOf = new Map(reads);
      const expected = texts(plan, sentBy).map((lists, rank) => {
        const answered = lists.map((): number[] => []);
        for (const [i, messages] of lists.entries()) {
          if (messages.length === 0) continue;
          const read = messages.map((message) => readOf.get(message)!);
          const first = past[rank]!.findIndex(
            (begun, later) => later > i && read.every(({ receiver, at }) => begun[receiver]! > at),
          );
          answered[first]?.push(i);
        }
        return answered;
      });
      expect(plan.actions.map((_, rank) => answeredAt(plan, rank))).toEqual(expected);
    });
    fc.assert(property, { numRuns: 15 });
  });

  test("comes to its end with sends awaited where they are answered", () => {
    const property = fc.property(anyPlan(schedule), (plan) => {
      const answered = plan.actions.map((_, rank) => answeredAt(plan, rank));
      expect(ends(plan, (rank, index) => answered[rank]![index]!)).toBe(true);
    });
    fc.assert(property, { numRuns: 15 });
  });
});

test("awaiting a send as soon as it is posted stops every DualPipe, DualPipeV, and 1F1B that fills", () => {
  const filled = fc
    .integer({ min: 2, max: 5 })
    .map((ranks) => planSchedule("1f1b", { ranks, microBatches: 6 }));
  const property = fc.property(fc.oneof(anyPlan("dualpipe"), anyPlan("dualpipev"), filled), (plan) => {
    expect(ends(plan, (_, index) => [index])).toBe(false);
  });
  fc.assert(property, { numRuns: 25 });
});

test("two ranks of 1F1B await activations at their gradients, gradients at an activation made after them", () => {
  // Rank 0: F0 F1 B0 F2 B1 B2. Rank 1: F0 B0 F1 B1 F2 B2. Rank 0 sends nothing after the last two gradients.
  const plan = planSchedule("1f1b", { ranks: 2, microBatches: 3 });
  expect(answeredAt(plan, 0)).toEqual([[], [], [0], [], [1], [3]]);
  expect(answeredAt(plan, 1)).toEqual([[], [], [], [], [1], []]);
});
