/**
 * Everything that ranks say to one another in a run, at random sizes: the same program for ranks of one process and
 * of many, with one digest a rank of all that arrived.
 */
import { createHash } from "node:crypto";
import {
  allToAll,
  allToAllRows,
  barrier,
  broadcast,
  broadcastJson,
  type Communicator,
  gatherJson,
  type Receive,
  type Send,
  treeSum,
} from "../../src/parallel/index.ts";
import { axpy, type Dtype, Recording, scale, type Tensor } from "../../src/tensor/index.ts";
import { integers, makeRandom } from "../support/random.ts";

/** Beyond what any MPI sends without the receiver's leave, so that both ways of sending are taken. */
const LONGEST = 60_000;
const DTYPES: readonly Dtype[] = ["i32", "f32", "bf16"];

/** Speaks with the others and returns the SHA-256 of all that this rank has heard. */
export async function converse(communicator: Communicator, seed: number): Promise<string> {
  const hash = createHash("sha256");
  const hear = async (tensor: Tensor): Promise<void> => void hash.update(await tensor.readBytes());
  const said = { ...(await broadcastJson(communicator, { seed, text: "größer" }, 0)) };
  hash.update(JSON.stringify([said, await gatherJson(communicator, communicator.rank * said.seed)]));
  await pingPong(communicator, hear);
  for (let round = 0; round < 6; round++) await exchangeAtRandom(communicator, seed + round, hear);
  await talkInGroups(communicator, hear);
  await sumAndSwap(communicator, seed, hear);
  await replay(communicator, hear);
  await barrier(communicator);
  return hash.digest("hex");
}

type Hear = (tensor: Tensor) => Promise<void>;

/** Each pair of neighbours throws one ball to and fro, larger every time. */
async function pingPong(communicator: Communicator, hear: Hear): Promise<void> {
  const { rank, size, device } = communicator;
  const peer = rank ^ 1;
  if (peer >= size) return;
  using _scope = device.scope();
  for (const length of [0, 1, 250, 20_000, LONGEST]) {
    const ball = device.empty([length], "f32");
    if (rank < peer) {
      ball.write(integers(length, 1000, length + rank));
      communicator.exchange([{ to: peer, x: ball }], []).wait();
      communicator.exchange([], [{ from: peer, y: ball }]).wait();
    } else {
      communicator.exchange([], [{ from: peer, y: ball }]).wait();
      scale(ball, 0.5);
      communicator.exchange([{ to: peer, x: ball }], []).wait();
    }
    await hear(ball);
  }
}

/** All ranks know the whole plan, for all draw the same numbers; several messages of a pair share a tag. */
async function exchangeAtRandom(communicator: Communicator, seed: number, hear: Hear): Promise<void> {
  const { rank, size, device } = communicator;
  const random = makeRandom(seed);
  const whole = (below: number): number => Math.floor(random() * below);
  using _scope = device.scope();
  const heard: Tensor[] = [];
  const pending = [0, 1, 2].map((tag) => {
    const [sends, receives]: [Send[], Receive[]] = [[], []];
    for (let message = 0; message < 3 * size; message++) {
      const [from, to] = [whole(size), whole(size)];
      const length = random() < 0.2 ? whole(4) : whole(random() < 0.2 ? LONGEST : 2000);
      const dtype = DTYPES[whole(DTYPES.length)]!;
      if (from === rank) sends.push({ to, x: filled(device.empty([length], dtype), seed + message) });
      if (to === rank) receives.push({ from, y: device.empty([length], dtype) });
    }
    heard.push(...receives.map(({ y }) => y));
    return communicator.exchange(sends, receives, tag);
  });
  // Computes while they travel, and awaits them in another order than they were posted in.
  const busy = filled(device.empty([1000], "f32"), seed);
  scale(busy, 0.25);
  for (const exchange of pending.toReversed()) exchange.wait();
  for (const tensor of heard) await hear(tensor);
}

/** Two groupings of the same ranks at once, with equal tags: neither hears what is meant for the other. */
async function talkInGroups(communicator: Communicator, hear: Hear): Promise<void> {
  const { rank, size, device } = communicator;
  const everyone = Array.from({ length: size }, (_, member) => member);
  const alike = communicator.split(everyone.filter((other) => other % 2 === rank % 2));
  const backwards = communicator.split(everyone.toReversed());
  using _scope = device.scope();
  const heard: Tensor[] = [];
  const talk = (group: Communicator, salt: number): { wait(): void } => {
    const others = Array.from({ length: group.size }, (_, member) => member);
    const received = others.map(() => device.empty([777], "f32"));
    heard.push(...received);
    return group.exchange(
      others.map((to) => ({ to, x: filled(device.empty([777], "f32"), salt + 10 * rank + to) })),
      others.map((from, at) => ({ from, y: received[at]! })),
      5,
    );
  };
  const [first, second] = [talk(alike, 1000), talk(backwards, 2000)];
  second.wait();
  first.wait();
  for (const tensor of heard) await hear(tensor);
}

async function sumAndSwap(communicator: Communicator, seed: number, hear: Hear): Promise<void> {
  const { rank, size, device } = communicator;
  using _scope = device.scope();
  const summed = filled(device.empty([50_001], "f32"), seed + 100 * rank);
  treeSum(communicator, summed);
  await hear(summed);
  const told = filled(device.empty([LONGEST], "bf16"), seed + rank);
  broadcast(communicator, told, size - 1);
  await hear(told);
  await hear(allToAll(communicator, filled(device.empty([size, 333], "f32"), rank)));
  // Rank a has a + b + 1 rows for rank b, and so expects as many from it.
  const counts = Array.from({ length: size }, (_, other) => rank + other + 1);
  const bounds = [0];
  for (const count of counts) bounds.push(bounds.at(-1)! + count);
  const offsets = device.from(bounds, [size + 1], "i32");
  const rows = bounds.at(-1)!;
  const to = device.empty([rows, 64], "f32");
  allToAllRows(
    communicator,
    { x: filled(device.empty([rows, 64], "f32"), rank), offsets },
    { x: to, offsets },
  );
  await hear(to);
}

/** A recording posts and awaits again whenever it runs. */
async function replay(communicator: Communicator, hear: Hear): Promise<void> {
  const { rank, size, device } = communicator;
  const [x, y] = [device.temporary([4096], "f32"), device.temporary([4096], "f32")];
  filled(x, rank);
  const ring = new Recording(device, () => {
    communicator.exchange([{ to: (rank + 1) % size, x }], [{ from: (rank + size - 1) % size, y }]).wait();
    axpy(y, x, 0.5);
  });
  for (let run = 0; run < 4; run++) {
    ring.run();
    await hear(x);
  }
  for (const tensor of [x, y]) tensor.dispose();
}

function filled(tensor: Tensor, seed: number): Tensor {
  tensor.write(integers(tensor.size, 1000, seed));
  return tensor;
}
