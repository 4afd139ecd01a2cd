import { expect, test, vi } from "vitest";
import type { StepEstimate } from "../train/index.ts";
import { launchOf } from "./openRanks.ts";
import { describeMachine, planMemory, startedEvent } from "./runBeginning.ts";
import { newConfig } from "./runConfig.ts";

const config = newConfig({ preset: "unit" }, 5);
const machine = { native: null, threads: 1, rank: 0, team: null, job: null, warning: null };

function counting(): { seats: (number | null)[]; estimate: Parameters<typeof planMemory>[1] } {
  const seats: (number | null)[] = [];
  const estimate = async (_: unknown, seat: { rank: number } | null = null): Promise<StepEstimate> => {
    seats.push(seat?.rank ?? null);
    const parts = { weights: 0, gradients: 0, moments: 0, averages: 0, activations: 0 };
    return { nativeBytes: 1000 + seats.length, gemmWeightBytes: 0, cachedActivationBytes: 0, parts };
  };
  return { seats, estimate };
}

test("each rank's memory is planned once, and what is told of the machine is taken from that", async () => {
  const launch = launchOf({ ranks: 4, zero1: true }, null);
  const { seats, estimate } = counting();
  const planned = await planMemory({ config, launch }, estimate);
  expect(seats).toEqual([0, 1, 2, 3]);
  const device = undefined as never;
  const { ranks } = await describeMachine({ ...machine, device }, { config, launch }, planned);
  expect(ranks).toEqual({ layout: "dp=4,ep=1,pp=1", zero1: true, tensorBytes: [1001, 1002, 1003, 1004] });
  expect(seats).toHaveLength(4);
});

test("a process alone is planned as one that has no place among ranks", async () => {
  const { seats, estimate } = counting();
  const planned = await planMemory({ config, launch: null }, estimate);
  expect(seats).toEqual([null]);
  const device = undefined as never;
  expect(await describeMachine({ ...machine, device }, { config, launch: null }, planned)).not.toHaveProperty(
    "ranks",
  );
});

test("a process is told to take the tensors of all its ranks, under a launcher those of one", async () => {
  const launch = launchOf({ ranks: 4, zero1: true }, null);
  const planned = await planMemory({ config, launch }, counting().estimate);
  const device = undefined as never;
  const environment = await describeMachine({ ...machine, device }, { config, launch }, planned);
  const run = { config, launch, bytesBeforeTensors: 5, folder: { manifest: { runId: "run" } } };
  const { memory } = await startedEvent(run, environment, planned, []);
  expect(memory).toMatchObject({ nativeBytes: 1001, rssBytes: 5 + 1001 + 1002 + 1003 + 1004 });
  vi.stubEnv("OMPI_COMM_WORLD_SIZE", "4");
  vi.stubEnv("OMPI_COMM_WORLD_RANK", "0");
  try {
    expect((await startedEvent(run, environment, planned, [])).memory.rssBytes).toBe(5 + 1001);
  } finally {
    vi.unstubAllEnvs();
  }
});
