/** The conversation over MPI: `converse.ts SEED`; each rank prints its digest. */
import { joinMpi } from "../../../src/parallel/index.ts";
import { NativeBackend, QueueDevice } from "../../../src/tensor/index.ts";
import { converse } from "../conversation.ts";

const LIMIT = 2 ** 28;
const job = joinMpi({ timeoutSeconds: 30 });
const device = new QueueDevice(new NativeBackend({ threads: 1, reserveBytes: LIMIT }), LIMIT);
const digest = await converse(job.communicator(device), Number(process.argv[2]));
process.stdout.write(`${JSON.stringify({ rank: job.rank, digest })}\n`);
await device.dispose();
await job.leave();
