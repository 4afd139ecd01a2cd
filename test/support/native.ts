/** Native devices for tests: every instruction set that this machine has, with one and with two threads. */
import { spawnSync } from "node:child_process";
import { type Isa, loadAddon, NativeBackend, QueueDevice } from "../../src/tensor/index.ts";

export interface NativeDevice {
  readonly name: string;
  readonly device: QueueDevice;
  readonly backend: NativeBackend;
  readonly kernels: readonly string[];
  /** Devices of one class give equal bits; AMX sums bf16 products in an order of its own. */
  readonly numericClass: "amx" | "fma";
}

const { addon, reason } = loadAddon();

/**
 * True only where no addon can be had. With cargo on the machine a missing addon is an error, not a reason to skip:
 * otherwise a broken build would look like a green one.
 */
export const nativeIsMissing: boolean = addon === null;
if (addon === null && spawnSync("cargo", ["--version"]).status === 0) {
  throw new Error(`cargo is here, but the native addon is not: ${reason}`);
}

/** Every instruction set, best first, with two threads and with one. */
export function nativeDevices(limitBytes: number = 2 ** 31): readonly NativeDevice[] {
  if (addon === null) return [];
  const isas = addon.info().isas;
  const wanted = isas.flatMap((isa): [Isa, number][] => [
    [isa, 2],
    [isa, 1],
  ]);
  return wanted.map(([isa, threads]) => makeNativeDevice(isa, threads, limitBytes));
}

export function makeNativeDevice(
  isa: Isa | undefined,
  threads: number,
  limitBytes: number = 2 ** 31,
): NativeDevice {
  const backend = new NativeBackend({
    threads,
    reserveBytes: limitBytes,
    ...(isa === undefined ? {} : { isa }),
  });
  return {
    name: `${backend.isa}, ${threads} threads`,
    device: new QueueDevice(backend, limitBytes),
    backend,
    kernels: backend.kernels,
    numericClass: backend.isa === "amx" ? "amx" : "fma",
  };
}
