/** Compares what ranks have computed with one process, bit for bit. */
import { expect } from "vitest";
import type { Trained } from "./rankedTraining.ts";

/** On every rank the records and weights of one process; with ZeRO-1 each moment on one rank, without on all. */
export function expectSameBits(ranks: readonly Trained[], alone: Trained, zero1: boolean): void {
  const holders = new Map<string, number>();
  for (const { records, state } of ranks) {
    expect(records).toEqual(alone.records);
    for (const [name, hash] of state) {
      expect(hash, name).toBe(alone.state.get(name));
      holders.set(name, (holders.get(name) ?? 0) + 1);
    }
  }
  for (const name of alone.state.keys()) {
    const isSharded = zero1 && /^(m|v|average) /.test(name);
    expect(holders.get(name), name).toBe(isSharded ? 1 : ranks.length);
  }
}

/** On every rank the records of one process, and its bits of whatever the rank holds; nothing is held by nobody. */
export function expectSameParts(ranks: readonly Trained[], alone: Trained): void {
  const held = new Set<string>();
  for (const { records, state } of ranks) {
    expect(records).toEqual(alone.records);
    for (const [name, hash] of state) {
      expect(hash, name).toBe(alone.state.get(name));
      held.add(name);
    }
  }
  expect([...alone.state.keys()].filter((name) => !held.has(name))).toEqual([]);
}
