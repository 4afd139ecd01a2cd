/** Joins a job and ends in one of several ways: `ending.ts WAY [addon]`. */
import { setTimeout as sleep } from "node:timers/promises";
import { joinMpi } from "../../../src/parallel/index.ts";

const [way = "", addon = ""] = process.argv.slice(2);
const job = joinMpi({ timeoutSeconds: 20, ...(addon.endsWith(".node") && { addon }) });
process.stdout.write(`rank ${job.rank} of ${job.size} has joined\n`);

if (way === "leave") {
  // The last one is late: the others wait for it.
  if (job.rank === job.size - 1) await sleep(500);
  await job.leave();
  process.stdout.write(`rank ${job.rank} has left\n`);
} else if (way === "end") {
  // Nothing: a program that forgot to leave.
} else if (way === "throw") {
  if (job.rank === 1) throw new Error("rank 1 has had enough");
  await sleep(60_000);
} else if (way === "stay") {
  await sleep(60_000);
} else if (way === "twice") {
  joinMpi();
}
