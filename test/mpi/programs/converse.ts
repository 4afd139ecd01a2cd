/** The conversation over MPI: `converse.ts SEED [ADDON]`; each rank prints its digest. */
import { joinMpi } from "../../../src/parallel/index.ts";
import { NativeBackend, QueueDevice } from "../../../src/tensor/index.ts";
import { converse } from "../conversation.ts";

const LIMIT = 2 ** 28;
const [seed, addon] = process.argv.slice(2);
const job = joinMpi({ timeoutSeconds: 60, ...(addon !== undefined && { addon }) });
const device = new QueueDevice(new NativeBackend({ threads: 1, reserveBytes: LIMIT }), LIMIT);
const digest = await converse(job.communicator(device), Number(seed));
process.stdout.write(`${JSON.stringify({ rank: job.rank, digest })}\n`);
await device.dispose();
await job.leave();
