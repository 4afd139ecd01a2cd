/** The command line with a rank that comes to grief before its third step: `failing.ts WAY RANK ARGS...`. */
import { setTimeout as sleep } from "node:timers/promises";
import { DiskError } from "../../../src/base/index.ts";
import { CheckpointStore } from "../../../src/checkpoint/index.ts";
import { main } from "../../../src/cli/main.ts";
import { type Communicator, launcherOf, QueueCommunicator } from "../../../src/parallel/index.ts";
import { Shard } from "../../../src/train/data/shard.ts";
import { RowSampler } from "../../../src/train/index.ts";

const [way = "", rank = "", ...args] = process.argv.slice(2);

if (launcherOf(process.env)?.rank !== Number(rank)) {
  // All is well here.
} else if (way === "is full") {
  // Nothing can be written, and what is left to do takes longer than the others wait for a rank that fails.
  CheckpointStore.prototype.write = () => {
    const detail = { why: "no space is left on it", fix: "free some space" };
    return Promise.reject(new DiskError(`the disk of rank ${rank} is full`, detail));
  };
  const { close } = Shard.prototype;
  Shard.prototype.close = async function () {
    await sleep(2500);
    await close.call(this);
  };
} else {
  const world = rememberWorld();
  const { next } = RowSampler.prototype;
  let steps = 0;
  RowSampler.prototype.next = function (count) {
    if (++steps === 3) fail(world());
    return next.call(this, count);
  };
}
await main(args);

function fail(communicator: Communicator): void {
  if (way === "throws") throw new RangeError(`the disk of rank ${rank} is gone`);
  if (way === "exits") process.exit(3);
  if (way !== "breaks") throw new Error(`there is no way ${way}`);
  // Its queue fails: three numbers are awaited where two come.
  const { device } = communicator;
  const own = communicator.rank;
  const [x, y] = [device.from([1, 2], [2], "f32"), device.temporary([3], "f32")];
  communicator.exchange([{ to: own, x }], [{ from: own, y }], 200).wait();
}

/** The first communicator that exchanges anything is that of all ranks. */
function rememberWorld(): () => Communicator {
  let world: Communicator | undefined;
  const { exchange } = QueueCommunicator.prototype;
  QueueCommunicator.prototype.exchange = function (...all) {
    world ??= this;
    return exchange.apply(this, all);
  };
  return () => world!;
}
