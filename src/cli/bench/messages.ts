/**
 * `minke bench messages`: a ball thrown to and fro between two ranks, through their queues, as in a run.
 *
 * By itself the ranks are two queues of this process; under mpirun or srun they are ranks 0 and 1 of the job.
 */
import { BackendError } from "../../base/index.ts";
import { type Communicator, everyRank, inProcess, joinMpi, launcherOf } from "../../parallel/index.ts";
import { loadAddon, NativeBackend, QueueDevice, Recording } from "../../tensor/index.ts";
import { type BenchRow, timing } from "./row.ts";

export interface MessageFlags {
  readonly rounds: number;
  readonly json?: boolean;
}

const KILOBYTE = 1024;
const SIZES: readonly number[] = [1, 16, 64, 256, 1024, 4096, 16384].map((size) => size * KILOBYTE);
const LIMIT = 2 ** 28;

/** Rows on rank 0; other ranks play along and yield nothing. */
export async function* benchMessages({ rounds }: MessageFlags): AsyncGenerator<BenchRow> {
  const { addon, reason } = loadAddon();
  if (addon === null) {
    throw new BackendError("there is nothing to measure without the native backend", {
      why: reason,
      fix: "install Rust (https://rustup.rs), then npm run build",
    });
  }
  yield* launcherOf(process.env) === null ? betweenQueues(rounds) : betweenProcesses(rounds);
}

async function* betweenQueues(rounds: number): AsyncGenerator<BenchRow> {
  const ranks = inProcess(2, { backend: "native", limitBytes: LIMIT, threads: 1 });
  try {
    for (const bytes of SIZES) {
      const [seconds = []] = await everyRank(ranks, (rank) => playRounds(rank, bytes, rounds));
      yield messageRow("in one process", bytes, seconds);
    }
  } finally {
    for (const { device } of ranks) await device.dispose();
  }
}

async function* betweenProcesses(rounds: number): AsyncGenerator<BenchRow> {
  const job = joinMpi();
  if (job.size < 2) {
    throw new BackendError("there is one rank, and it takes two to throw a ball", {
      why: "mpirun started one process",
      fix: "mpirun -n 2 minke bench messages",
    });
  }
  const device = new QueueDevice(new NativeBackend({ threads: 1, reserveBytes: LIMIT }), LIMIT);
  const world = job.communicator(device);
  if (world.rank < 2) {
    const players = world.split([0, 1]);
    for (const bytes of SIZES) {
      const seconds = await playRounds(players, bytes, rounds);
      if (world.rank === 0) yield messageRow(`by ${job.library}`, bytes, seconds);
    }
  }
  await device.dispose();
  await job.leave();
}

/** Seconds one way, once for each round of some throws. */
async function playRounds(communicator: Communicator, bytes: number, rounds: number): Promise<number[]> {
  const { rank, device } = communicator;
  // Enough throws that starting a round costs little beside them.
  const throws = Math.min(100, Math.max(4, Math.round(2 ** 22 / bytes)));
  const ball = device.temporary([bytes / 4], "f32");
  const round = new Recording(device, () => {
    for (let i = 0; i < throws; i++) {
      const send = (): void => communicator.exchange([{ to: 1 - rank, x: ball }], []).wait();
      const receive = (): void => communicator.exchange([], [{ from: 1 - rank, y: ball }]).wait();
      for (const act of rank === 0 ? [send, receive] : [receive, send]) act();
    }
  });
  const seconds: number[] = [];
  // The first round touches the memory, and opens what the transport opens at need.
  for (let i = 0; i <= rounds; i++) {
    const begin = performance.now();
    round.run();
    await device.drain();
    if (i > 0) seconds.push((performance.now() - begin) / 1000 / (2 * throws));
  }
  ball.dispose();
  return seconds;
}

function messageRow(carrier: string, bytes: number, seconds: readonly number[]): BenchRow {
  const { best, median } = timing(seconds);
  return {
    bench: "messages",
    name: `${bytes / KILOBYTE} KB ${carrier}`,
    bytes,
    microseconds: best * 1e6,
    medianMicroseconds: median * 1e6,
    gigabytesPerSecond: bytes / best / 1e9,
  };
}
