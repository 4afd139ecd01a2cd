/** Opens what computes: one device, or one for each rank of this process, joined by messages. */
import { totalmem } from "node:os";
import {
  checkLayout,
  everyRank,
  inProcess,
  type Layout,
  layoutText,
  parseLayout,
  worldSize,
} from "../parallel/index.ts";
import { NativeBackend } from "../tensor/index.ts";
import type { Team, TrainConfig } from "../train/index.ts";
import { chooseBackend, type DeviceOptions, type OpenDevice, openDevice } from "./openDevice.ts";

export interface OpenRank extends OpenDevice {
  readonly rank: number;
  /** Null for one rank alone. */
  readonly team: Team | null;
}

export interface OpenRanks {
  /** Those of this process, in order. */
  readonly own: readonly OpenRank[];
  readonly launch: Launch | null;
}

/** How a run is computed this time; never what comes out. */
export interface Launch {
  readonly layout: Layout;
  readonly ranks: number;
}

/** What a caller says of them. */
export interface LaunchOptions {
  readonly ranks?: number;
  readonly layout?: string;
  readonly zero1?: boolean;
}

/** Null where nothing was said of ranks. */
export function launchOf({ ranks, layout, zero1 = false }: LaunchOptions): Launch | null {
  if (ranks === undefined && layout === undefined && !zero1) return null;
  const named = layout === undefined ? { dp: ranks ?? 1, ep: 1, pp: 1 } : parseLayout(layout);
  const wanted = { ...named, zero1 };
  return { layout: wanted, ranks: ranks ?? worldSize(wanted) };
}

/** @throws {ConfigError} if the launch is impossible, or does not fit the run's numbers */
export function requireFit(launch: Launch | null, config: TrainConfig): void {
  if (launch !== null) checkLayout(launch.layout, launch.ranks, config);
}

/** The flags that say the same again, behind the command that resumes a run. */
export function launchFlags(launch: Launch | null): string {
  if (launch === null) return "";
  const { layout, ranks } = launch;
  const plain = layout.ep === 1 && layout.pp === 1;
  return ` --ranks ${ranks}${plain ? "" : ` --layout ${layoutText(layout)}`}${layout.zero1 ? " --zero1" : ""}`;
}

export function openRanks(options: LaunchOptions & Pick<DeviceOptions, "threads" | "backend">): OpenRanks {
  const launch = launchOf(options);
  const { threads, backend } = options;
  if (launch === null) return { own: [{ ...openDevice({ threads, backend }), rank: 0, team: null }], launch };
  const { isNative, warning } = chooseBackend(backend);
  const communicators = inProcess(launch.ranks, {
    backend: isNative ? "native" : "reference",
    limitBytes: totalmem(),
    ...(threads === undefined ? {} : { threads }),
  });
  const own = communicators.map((communicator, rank): OpenRank => {
    const { device } = communicator;
    const native = device.backend instanceof NativeBackend ? device.backend : null;
    const team = { communicator, zero1: launch.layout.zero1 };
    return { device, native, warning, threads: native?.threads ?? 1, rank, team };
  });
  return { own, launch };
}

/** Runs the body on every rank of this process; if one fails, all end with its error. Resolves with the first's result. */
export async function onEveryRank<T>({ own }: OpenRanks, body: (rank: OpenRank) => Promise<T>): Promise<T> {
  const [first] = own;
  if (first!.team === null) return body(first!);
  const results = await everyRank(
    own.map(({ team }) => team!.communicator),
    (communicator) => body(own[own.findIndex(({ team }) => team!.communicator === communicator)]!),
  );
  return results[0]!;
}

export async function closeRanks({ own }: OpenRanks): Promise<void> {
  await Promise.all(own.map(({ device }) => device.dispose()));
}
