/** Who started this process as one of many, and what that launcher believes. */

export interface Launcher {
  /** As the user knows it. */
  readonly name: string;
  /** The variable that tells the size, for messages. */
  readonly variable: string;
  readonly size: number;
  readonly rank: number;
  /** The MPI library whose processes such a launcher can join; null where it depends. */
  readonly flavour: MpiFlavour | null;
}

export type MpiFlavour = "openmpi" | "mpich";

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * In order: inside `mpirun` under Slurm both speak, and mpirun is nearer.
 *
 * SLURM_NTASKS is not asked: it tells what was reserved, not what this step started.
 */
const LAUNCHERS: readonly {
  readonly name: string;
  readonly size: string;
  readonly rank: string;
  readonly flavour: MpiFlavour | null;
}[] = [
  {
    name: "Open MPI's mpirun",
    size: "OMPI_COMM_WORLD_SIZE",
    rank: "OMPI_COMM_WORLD_RANK",
    flavour: "openmpi",
  },
  { name: "MPICH's mpirun (or srun --mpi=pmi2)", size: "PMI_SIZE", rank: "PMI_RANK", flavour: "mpich" },
  { name: "srun", size: "SLURM_STEP_NUM_TASKS", rank: "SLURM_PROCID", flavour: null },
];

/** The launcher of this process; null where it was started by hand. */
export function launcherOf(environment: Environment): Launcher | null {
  for (const { name, size, rank, flavour } of LAUNCHERS) {
    const [ranks, own] = [wholeNumber(environment[size]), wholeNumber(environment[rank])];
    if (ranks === undefined || own === undefined) continue;
    // PMIx is how Slurm starts Open MPI; without it srun may have started anything.
    const isPmix = environment["PMIX_RANK"] !== undefined;
    return { name, variable: size, size: ranks, rank: own, flavour: flavour ?? (isPmix ? "openmpi" : null) };
  }
  return null;
}

function wholeNumber(text: string | undefined): number | undefined {
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined;
}
