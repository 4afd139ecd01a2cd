import fc from "fast-check";
import { expect, test } from "vitest";
import { Tickets } from "./tickets.ts";

const FIRST_RECORDED = 2 ** 16;

/** True and false take a ticket, recorded or not; a number gives one of those back. */
const anySteps = fc.array(fc.oneof(fc.boolean(), fc.nat({ max: 99 })), { maxLength: 80 });

test("tickets are never in two hands, and are the smallest of their kind that are free", () => {
  const property = fc.property(anySteps, (steps) => {
    const tickets = new Tickets();
    const held = new Set<number>();
    for (const step of steps) {
      if (typeof step === "number") {
        const back = [...held][step % Math.max(1, held.size)];
        if (back === undefined) continue;
        held.delete(back);
        tickets.giveBack(back);
        continue;
      }
      let smallest = step ? FIRST_RECORDED : 0;
      while (held.has(smallest)) smallest++;
      expect(tickets.take(step)).toBe(smallest);
      held.add(smallest);
    }
  });
  fc.assert(property);
});

test("a recording has the same tickets whatever else is in flight", () => {
  const few = fc.nat({ max: 50 });
  const property = fc.property(few, few, (before, between) => {
    const tickets = new Tickets();
    const record = (inFlight: number): readonly number[] => {
      for (let i = 0; i < inFlight; i++) tickets.take(false);
      const taken = [tickets.take(true), tickets.take(true), tickets.take(true)];
      for (const ticket of taken) tickets.giveBack(ticket);
      return taken;
    };
    expect(record(before)).toEqual([FIRST_RECORDED, FIRST_RECORDED + 1, FIRST_RECORDED + 2]);
    expect(record(between)).toEqual([FIRST_RECORDED, FIRST_RECORDED + 1, FIRST_RECORDED + 2]);
    expect(tickets.take(false)).toBe(before + between);
  });
  fc.assert(property);
});
