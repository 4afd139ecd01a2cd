import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type BuiltCommand, mergeCommands } from "./commandMerge.ts";
import { defineKernel } from "./kernel.ts";
import { awaitMessagesKernel, postReceiveKernel, postSendKernel } from "./ops/message.ts";

const mix = defineKernel({
  name: "mix",
  operands: { x: "in", y: "inout" },
  params: ["k"],
  reference: () => undefined,
});

function operand(address: number) {
  return { base: 64 * Math.floor(address / 2), offset: 4 * (address % 2), dtype: "f32", length: 1 } as const;
}

/** y = f(x, y), labelled. */
function compute(label: string, x: number, y: number): BuiltCommand {
  return { kernel: mix, operands: [operand(x), operand(y)], params: [0], label };
}

function awaits(ticket: number): BuiltCommand {
  return { kernel: awaitMessagesKernel, operands: [], params: [ticket], label: `await ${ticket}` };
}

/** From rank 0. */
function receives(ticket: number, y: number, length: number = 1, tag: number = 0): BuiltCommand {
  return {
    kernel: postReceiveKernel,
    operands: [{ ...operand(y), length }, null],
    params: [ticket, 0, tag, 1, 1, 0, 1],
    label: `post ${ticket}`,
  };
}

/** To rank 0. */
function sends(ticket: number, x: number, tag: number = 0): BuiltCommand {
  return { ...receives(ticket, x, 1, tag), kernel: postSendKernel };
}

function labels(commands: readonly BuiltCommand[]): readonly string[] {
  return commands.map(({ label }) => label);
}

/** What lies in memory after the commands; every value tells its whole history. */
function run(commands: readonly BuiltCommand[]): ReadonlyMap<number, string> {
  const memory = new Map<number, string>();
  const at = (i: number, command: BuiltCommand): number => {
    const { base, offset } = command.operands[i]!;
    return base + offset;
  };
  for (const command of commands) {
    if (command.kernel !== mix) continue;
    const [x, y] = [at(0, command), at(1, command)];
    memory.set(y, `${command.label}(${memory.get(x) ?? x}, ${memory.get(y) ?? y})`);
  }
  return memory;
}

describe("mergeCommands", () => {
  test("takes pieces that begin with awaits by turns, the second list's first", () => {
    const first = [
      compute("f0", 0, 2),
      awaits(1),
      awaits(2),
      compute("f1", 2, 4),
      awaits(3),
      compute("f2", 4, 6),
    ];
    const second = [
      compute("b0", 20, 22),
      awaits(4),
      compute("b1", 22, 24),
      awaits(5),
      compute("b2", 24, 26),
    ];
    expect(labels(mergeCommands(first, second))).toEqual([
      "b0",
      "f0",
      "await 4",
      "b1",
      "await 1",
      "await 2",
      "f1",
      "await 5",
      "b2",
      "await 3",
      "f2",
    ]);
  });

  test("makes no piece of a message that is short beside the others", () => {
    const first = [
      compute("f0", 0, 2),
      receives(1, 60),
      awaits(1),
      receives(2, 100, 64),
      awaits(2),
      compute("f1", 2, 4),
    ];
    const second = [compute("b0", 20, 22), awaits(3), compute("b1", 22, 24)];
    expect(labels(mergeCommands(first, second))).toEqual([
      "b0",
      "f0",
      "post 1",
      "await 1",
      "post 2",
      "await 3",
      "b1",
      "await 2",
      "f1",
    ]);
  });

  test("spreads few pieces over many, and loses none of either list", () => {
    const first = [compute("f0", 0, 2)];
    const second = [0, 1, 2, 3].flatMap((i) => [awaits(i), compute(`b${i}`, 20, 22)]);
    for (const [a, b] of [
      [first, second],
      [second, first],
    ] as const) {
      expect(labels(mergeCommands(a, b)).toSorted()).toEqual(labels([...first, ...second]).toSorted());
    }
    expect(mergeCommands([], second)).toEqual(second);
    expect(mergeCommands(second, [])).toEqual(second);
  });

  test("keeps the order of two that touch the same memory, unless both only read it", () => {
    const first = [compute("f0", 0, 2), awaits(1), compute("f1", 8, 4)];
    expect(labels(mergeCommands(first, [compute("reads", 4, 20)]))).toEqual(["f0", "await 1", "f1", "reads"]);
    expect(labels(mergeCommands(first, [compute("overwrites", 20, 8)])).at(-1)).toBe("overwrites");
    expect(labels(mergeCommands(first, [compute("reads too", 8, 20)])).at(0)).toBe("reads too");
    // Another part of the same storage is other memory.
    expect(labels(mergeCommands(first, [compute("beside", 5, 20)])).at(0)).toBe("beside");
  });

  test("takes what a message is received into for touched until its await", () => {
    const first = [receives(1, 4), compute("f0", 0, 2), awaits(1), compute("f1", 2, 6)];
    expect(labels(mergeCommands(first, [compute("reads", 4, 20)]))).toEqual([...labels(first), "reads"]);
  });

  test("keeps posts of one kind, peer and tag in their order: so they match on the other side", () => {
    const first = [
      receives(1, 2),
      awaits(1),
      compute("f0", 2, 4),
      receives(2, 6),
      awaits(2),
      compute("f1", 6, 8),
    ];
    const second = (post: BuiltCommand) => [
      compute("b0", 40, 42),
      awaits(8),
      compute("b1", 42, 44),
      post,
      awaits(9),
    ];
    const merged = (post: BuiltCommand): readonly string[] => labels(mergeCommands(first, second(post)));
    const isKept = (post: BuiltCommand): boolean =>
      merged(post).indexOf("post 9") > merged(post).indexOf("post 2");
    expect(isKept(receives(9, 46))).toBe(true);
    // What cannot be mixed up comes in its turn: another tag, the other way, another peer.
    expect(isKept(receives(9, 46, 1, 3))).toBe(false);
    expect(isKept(sends(9, 46))).toBe(false);
    expect(isKept({ ...receives(9, 46), params: [9, 1, 0, 1, 1, 0, 1] })).toBe(false);
  });

  test("lets nobody await or take a ticket that the other list still has", () => {
    const first = [compute("f0", 0, 2), awaits(5), compute("f1", 2, 4), receives(7, 6)];
    const awaiting = labels(mergeCommands(first, [compute("b0", 40, 42), awaits(7), compute("b1", 42, 44)]));
    expect(awaiting.indexOf("await 7")).toBeGreaterThan(awaiting.indexOf("post 7"));
    const taken = labels(mergeCommands([...first, awaits(7)], [receives(7, 46, 1, 3), awaits(7)]));
    expect(taken).toEqual(["f0", "await 5", "f1", "post 7", "await 7", "post 7", "await 7"]);
  });

  test("leaves in memory what the first list and then the second leave, for any lists", () => {
    const command = (of: string) =>
      fc.oneof(
        { weight: 1, arbitrary: fc.constant(awaits(0)) },
        {
          weight: 3,
          arbitrary: fc
            .tuple(fc.nat(9), fc.nat(9), fc.nat(99))
            .map(([x, y, k]) => compute(`${of}${k}`, x, y)),
        },
      );
    fc.assert(
      fc.property(
        fc.array(command("f"), { maxLength: 20 }),
        fc.array(command("b"), { maxLength: 20 }),
        (first, second) => {
          expect(run(mergeCommands(first, second))).toEqual(run([...first, ...second]));
        },
      ),
      { numRuns: 1000 },
    );
  });
});
