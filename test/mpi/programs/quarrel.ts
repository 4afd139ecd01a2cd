/** Two ranks that do not do the same things: `quarrel.ts WAY`. Rank 0 is the one that waits. */
import { setTimeout as sleep } from "node:timers/promises";
import { joinMpi } from "../../../src/parallel/index.ts";
import { NativeBackend, QueueDevice } from "../../../src/tensor/index.ts";

const [way = ""] = process.argv.slice(2);
const LIMIT = 2 ** 24;
const job = joinMpi({ timeoutSeconds: way === "never" ? 1.5 : 60 });
const device = new QueueDevice(new NativeBackend({ threads: 1, reserveBytes: LIMIT }), LIMIT);
const communicator = job.communicator(device);

if (way === "late") {
  // Both have left when one of them has something to say.
  await job.leave();
  communicator.exchange([{ to: 1 - job.rank, x: device.temporary([3], "f32") }], []).wait();
  await device.drain().catch((error: Error) => process.stdout.write(`${error.message.split("\n")[0]}\n`));
  await device.dispose();
} else if (job.rank === 0) {
  const y = device.temporary([12], "f32");
  communicator.exchange([], [{ from: 1, y }], 7).wait();
  await y.read();
  process.stdout.write("rank 0 heard something\n");
} else if (way === "never") {
  await sleep(30_000);
} else if (way === "leaves") {
  await device.dispose();
  await job.leave();
} else if (way === "shorter" || way === "longer") {
  const x = device.temporary([way === "shorter" ? 11 : 13], "f32");
  communicator.exchange([{ to: 0, x }], [], 7).wait();
  await device.drain();
  await sleep(30_000);
} else if (way === "gives up") {
  communicator.abort("its disk is full");
} else if (way === "forgets") {
  // Ends with a message of its own still awaited by nobody.
  communicator.exchange([], [{ from: 0, y: device.temporary([3], "f32") }], 9);
  await sleep(200);
}
