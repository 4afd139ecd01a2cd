/** The command line with a rank that comes to grief before its third step: `failing.ts WAY RANK ARGS...`. */
import { main } from "../../../src/cli/main.ts";
import { type Communicator, launcherOf, QueueCommunicator } from "../../../src/parallel/index.ts";
import { RowSampler } from "../../../src/train/index.ts";

const [way = "", rank = "", ...args] = process.argv.slice(2);

if (launcherOf(process.env)?.rank === Number(rank)) {
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
