/**
 * Every function of the MPI addon, typed in one screen, and how it is found: native/mpi/addon.c.
 *
 * It is built once for each MPI library of the machine (scripts/build-mpi.js), for their binary interfaces differ.
 */
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { BackendError } from "../../../base/index.ts";
import type { MpiFlavour } from "./launcher.ts";

/** What is known of a job once all its ranks have started. */
export interface MpiFacts {
  readonly rank: number;
  readonly size: number;
  /** Of this rank's machine, as MPI calls it. */
  readonly host: string;
  readonly tagLimit: number;
  /** Address of a `struct minke_transport` (native/mpi/transport.h), valid as long as the process. */
  readonly table: bigint;
}

export interface MpiAddon {
  /** The library it was built for: Open MPI, MPICH. */
  readonly flavour: string;
  /** The version text of the library that it found here. */
  readonly library: string;
  /** Joins the job; blocks until all ranks have. @param timeoutSeconds  how long an await waits for its messages */
  start(timeoutSeconds: number): MpiFacts;
  /** Says goodbye and waits up to `seconds` for the others: null when all have left, else who has not. */
  leave(seconds: number): string | null;
  /**
   * Which other rank has failed, and why; null as long as none has.
   *
   * @param seconds  how long rank 0 lets the job live from then on; 0, as at the start, ends it at once
   */
  attend(seconds: number): string | null;
  /** Ends the job on every rank, this one too. Returns only if there is no job. */
  abort(why: string): void;
}

/** The built addons of this package, the launcher's kind first. */
export function builtMpiAddons(wanted: MpiFlavour | null): readonly string[] {
  const flavours: readonly MpiFlavour[] = wanted === "mpich" ? ["mpich", "openmpi"] : ["openmpi", "mpich"];
  // native/ lies beside src/ and dist/, whichever of them this file is in.
  const folder = join(dirname(fileURLToPath(import.meta.url)), "..", "..", "..", "..", "native");
  return flavours
    .map((flavour) => join(folder, `minke-mpi-${flavour}.${process.platform}-${process.arch}.node`))
    .filter((path) => existsSync(path));
}

/** "Open MPI v4.1.4", "MPICH Version: 4.0.2": what the libraries' texts begin with. */
export function libraryName({ library }: MpiAddon): string {
  return library.split(/[\n,]/, 1).join("").replaceAll(/\s+/g, " ");
}

export function loadMpiAddon(path: string | undefined): MpiAddon {
  if (path === undefined) {
    throw new BackendError("the MPI addon is not built", {
      why: "messages between processes travel by MPI, whose compiler (mpicc) was not found when Minke was built",
      fix: "install it (Debian, Ubuntu: apt install openmpi-bin libopenmpi-dev), then run: node scripts/build-mpi.js",
    });
  }
  try {
    // Whatever lies at that path is checked by name below, not trusted by type.
    const loaded: unknown = createRequire(import.meta.url)(path);
    if (isMpiAddon(loaded)) return loaded;
  } catch (cause) {
    throw new BackendError(`the MPI addon cannot be loaded: ${firstLine(cause)}`, {
      why: `${path} needs the MPI library that it was built with`,
      fix: "install that library again, or build the addon for what is there: node scripts/build-mpi.js",
      fields: { path },
      cause,
    });
  }
  throw new BackendError(`${path} is no MPI addon of this version`, {
    why: "it lacks functions that this version calls",
    fix: "build it again: node scripts/build-mpi.js",
    fields: { path },
  });
}

function isMpiAddon(value: unknown): value is MpiAddon {
  if (typeof value !== "object" || value === null) return false;
  const members: ReadonlyMap<string, unknown> = new Map(Object.entries(value));
  const names: readonly (keyof MpiAddon)[] = ["start", "leave", "attend", "abort"];
  return names.every((name) => typeof members.get(name) === "function");
}

function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n")[0] ?? "";
}
