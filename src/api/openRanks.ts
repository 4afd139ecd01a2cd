/** Opens what computes: one device, or one for each rank of this process, joined by messages. */
import { availableParallelism, totalmem } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { UsageError } from "../base/index.ts";
import {
  checkExperts,
  checkLayout,
  everyRank,
  inProcess,
  isFirstsFailure,
  joinMpi,
  type Launcher,
  type Layout,
  launcherOf,
  layoutText,
  type MpiJob,
  parseLayout,
  type Schedule,
  worldSize,
} from "../parallel/index.ts";
import { NativeBackend, TracedBackend } from "../tensor/index.ts";
import { requireSharedScales, scheduleAt, type Team, type TrainConfig, teamFor } from "../train/index.ts";
import { chooseBackend, type DeviceOptions, type OpenDevice, openDevice } from "./openDevice.ts";

export interface OpenRank extends OpenDevice {
  readonly rank: number;
  /** Null for one rank alone. */
  readonly team: Team | null;
  /** The job of processes that this rank is one of. */
  readonly job: MpiJob | null;
}

export interface OpenRanks {
  /** Those of this process, in order. */
  readonly own: readonly OpenRank[];
  readonly launch: Launch | null;
  /** The job of processes that this one is a rank of. */
  readonly job: MpiJob | null;
}

/** How a run is computed this time; never what comes out. */
export interface Launch {
  readonly layout: Layout;
  readonly ranks: number;
  /** Null where the ranks that share experts send to one another straight. */
  readonly ranksPerNode: number | null;
}

/** What a caller says of them. */
export interface LaunchOptions {
  readonly ranks?: number;
  readonly layout?: string;
  readonly zero1?: boolean;
  readonly ranksPerNode?: number;
  readonly schedule?: Schedule;
  /** Steps whose commands are recorded on every rank. */
  readonly trace?: number;
}

/**
 * Null where nothing was said of ranks.
 *
 * @param started  processes that a launcher has started, one rank each; null if this one was started alone
 */
export function launchOf(options: LaunchOptions, started: number | null = launchedRanks()): Launch | null {
  const { ranks, layout, zero1 = false, ranksPerNode = null } = options;
  if (started !== null && ranks !== undefined) {
    throw new UsageError(`--ranks ${ranks} is given, and mpirun has started ${started}`, {
      why: "under a launcher each process is one rank; --ranks puts several into one process",
      fix: `leave --ranks out, or start one process without mpirun`,
      fields: { ranks, started },
    });
  }
  requirePipelineFor(options);
  if (started === null && ranks === undefined && layout === undefined && !zero1 && ranksPerNode === null)
    return null;
  const count = started ?? ranks;
  const named = layout === undefined ? { dp: count ?? 1, ep: 1, pp: 1 } : parseLayout(layout);
  const wanted = { ...named, zero1, schedule: options.schedule ?? "dualpipe" };
  return { layout: wanted, ranks: count ?? worldSize(wanted), ranksPerNode };
}

/** @throws {UsageError} if a schedule is named where there is no pipeline: it would have no effect */
function requirePipelineFor({ layout, schedule }: LaunchOptions): void {
  if (schedule === undefined || (layout !== undefined && parseLayout(layout).pp > 1)) return;
  throw new UsageError(`--schedule ${schedule} is given without a pipeline`, {
    why: "a schedule says in which order the ranks of a pipeline work",
    fix: `add for example --layout pp=2, or leave --schedule out`,
    fields: { schedule, layout },
  });
}

function launchedRanks(): number | null {
  return launcher()?.size ?? null;
}

/** True in a process that a launcher has started as a rank. */
export function isLaunched(): boolean {
  return launcher() !== null;
}

/** A step of one task, as a Slurm shell is, is no job of ranks. */
function launcher(): Launcher | null {
  const found = launcherOf(process.env);
  return found === null || (found.size === 1 && found.flavour === null) ? null : found;
}

/** False in the processes of a job that have to be silent. */
export function isFirstProcess(): boolean {
  return (launcher()?.rank ?? 0) === 0;
}

/** @throws {ConfigError} if the launch is impossible, or does not fit the run's numbers */
export function requireFit(launch: Launch | null, config: TrainConfig): void {
  if (launch === null) return;
  const batchRows = Math.min(...[0, 1].map((share) => scheduleAt(config, { step: 0, share }).batchRows));
  checkLayout(launch.layout, launch.ranks, { ...config, batchRows });
  checkExperts(launch.layout, config.model, launch.ranksPerNode);
  requireSharedScales(launch.layout, config);
}

/** The flags that say the same again, behind the command that resumes a run. */
export function launchFlags(launch: Launch | null): string {
  if (launch === null) return "";
  const { layout, ranks, ranksPerNode } = launch;
  const nodes = ranksPerNode === null ? "" : ` --ranks-per-node ${ranksPerNode}`;
  const schedule = layout.pp > 1 ? ` --schedule ${layout.schedule}` : "";
  const zero1 = `${schedule}${nodes}${layout.zero1 ? " --zero1" : ""}`;
  if (launchedRanks() !== null) return ` --layout ${layoutText(layout)}${zero1}`;
  const plain = layout.ep === 1 && layout.pp === 1;
  return ` --ranks ${ranks}${plain ? "" : ` --layout ${layoutText(layout)}`}${zero1}`;
}

/** Opens this process's ranks; one of a job joins it, and ends it if it cannot compute. */
export async function openRanks(
  options: LaunchOptions & Pick<DeviceOptions, "threads" | "backend">,
): Promise<OpenRanks> {
  const { threads, backend } = options;
  const launch = launchOf(options);
  if (options.trace !== undefined) requireTraceable(options);
  if (launcher() !== null) return joinJob(options);
  if (launch === null) {
    const own = [{ ...openDevice({ threads, backend }), rank: 0, team: null, job: null }];
    return { own, launch, job: null };
  }
  const { isNative, warning } = chooseBackend(backend);
  const communicators = inProcess(launch.ranks, {
    backend: isNative ? "native" : "reference",
    limitBytes: totalmem(),
    isTraced: options.trace !== undefined,
    ...(threads === undefined ? {} : { threads }),
  });
  const own = communicators.map((communicator, rank): OpenRank => {
    const { device } = communicator;
    const queue = device.backend instanceof TracedBackend ? device.backend.native : device.backend;
    const native = queue instanceof NativeBackend ? queue : null;
    const team = teamFor(communicator, launch.layout, launch.ranksPerNode);
    return { device, native, warning, threads: native?.threads ?? 1, rank, team, job: null };
  });
  return { own, launch, job: null };
}

/** A trace is made of what native queues of ranks note. */
function requireTraceable(options: LaunchOptions & Pick<DeviceOptions, "backend">): void {
  const { isNative, warning } = chooseBackend(options.backend);
  if (!isNative) {
    throw new UsageError("--trace needs the native backend", {
      why: `the reference backend keeps no times: ${warning?.why}`,
      fix: warning?.fix ?? "leave --backend reference out",
    });
  }
  if (launchOf(options) !== null) return;
  throw new UsageError("--trace records ranks, and there are none", {
    why: "neither --ranks nor --layout is given, and no launcher has started this process",
    fix: "add --ranks 1 or more; one process alone is traced by minke bench step --trace FILE",
  });
}

/** This process as one rank of a job. Ranks of one host share its cores. */
async function joinJob(
  options: LaunchOptions & Pick<DeviceOptions, "threads" | "backend">,
): Promise<OpenRanks> {
  // What all ranks were told wrongly, all of them find out before they are a job.
  const launch = launchOf(options);
  const job = joinMpi();
  return inJob(job, async () => {
    const { threads = threadsOfARank(), backend } = options;
    const opened = openDevice({ threads, backend, isTraced: options.trace !== undefined });
    const communicator = job.communicator(opened.device);
    const team = teamFor(communicator, launch!.layout, launch!.ranksPerNode);
    return { own: [{ ...opened, rank: job.rank, team, job }], launch, job };
  });
}

function threadsOfARank(): number {
  const { OMPI_COMM_WORLD_LOCAL_SIZE: openMpi, MPI_LOCALNRANKS: mpich } = process.env;
  const neighbours = Number(openMpi ?? mpich ?? 1);
  return Math.max(1, Math.floor(availableParallelism() / Math.max(1, neighbours)));
}

/** Runs the body on every rank of this process; if one fails, all end with its error. Resolves with the first's result. */
export async function onEveryRank<T>(ranks: OpenRanks, body: (rank: OpenRank) => Promise<T>): Promise<T> {
  const { own, job } = ranks;
  const [first] = own;
  if (job !== null) return inJob(job, () => body(first!));
  if (first!.team === null) return body(first!);
  const results = await everyRank(
    own.map(({ team }) => team!.communicator),
    (communicator) => body(own[communicator.rank]!),
  );
  return results[0]!;
}

/**
 * How long a rank that has failed waits for the others to leave of themselves, because they have failed alike: less than
 * the two seconds after which they would say that it has left them alone.
 */
const LEAVE_MS = 1000;

/** How long it waits for the first rank, which has failed and has a report to write before it says why. */
const FIRST_SPEAKS_MS = 30_000;

async function inJob<T>(job: MpiJob, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    // Where the first rank has told the others to go, it can say by itself what is wrong; else they wait for messages.
    const left = job.leave().then(
      () => true,
      () => false,
    );
    const patience = isFirstsFailure(error) ? FIRST_SPEAKS_MS : LEAVE_MS;
    if (!(await Promise.race([left, sleep(patience, false, { ref: false })])))
      job.abort(error instanceof Error ? error.message : String(error));
    throw error;
  }
}

/** Gives the devices back, and leaves the job if there is one. */
export async function closeRanks({ own, job }: OpenRanks): Promise<void> {
  await Promise.all(own.map(({ device }) => device.dispose()));
  await job?.leave();
}
