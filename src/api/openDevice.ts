/** Picks the backend: native where its addon loads, else the reference, with one line that says what to install. */
import { totalmem } from "node:os";
import type { RunWarning } from "../base/index.ts";
import { type Isa, loadAddon, NativeBackend, QueueDevice, ReferenceBackend } from "../tensor/index.ts";

export interface OpenDevice {
  readonly device: QueueDevice;
  /** Null on the reference backend. */
  readonly native: NativeBackend | null;
  /** What the user should hear. */
  readonly warning: RunWarning | null;
  readonly threads: number;
}

export interface DeviceOptions {
  readonly threads?: number | undefined;
  readonly isa?: Isa | undefined;
  readonly backend?: "native" | "reference" | undefined;
}

/** Whether the kernels are native, and what the user should hear if they are not. */
export function chooseBackend(backend: DeviceOptions["backend"]): {
  readonly isNative: boolean;
  readonly warning: RunWarning | null;
} {
  const { addon, reason } =
    backend === "reference" ? { addon: null, reason: "it was asked for" } : loadAddon();
  if (addon !== null) return { isNative: true, warning: null };
  const warning: RunWarning = {
    type: "run.warning",
    what: "the reference backend computes: correct, and hundreds of times slower",
    why: reason,
    fix: backend === "reference" ? null : "install Rust (https://rustup.rs), then npm run build",
  };
  return { isNative: false, warning };
}

export function openDevice({ threads, isa, backend }: DeviceOptions = {}): OpenDevice {
  const limit = totalmem();
  const { isNative, warning } = chooseBackend(backend);
  if (!isNative)
    return { device: new QueueDevice(new ReferenceBackend(), limit), native: null, warning, threads: 1 };
  const native = new NativeBackend({
    ...(threads === undefined ? {} : { threads }),
    ...(isa === undefined ? {} : { isa }),
  });
  return { device: new QueueDevice(native, limit), native, warning: null, threads: native.threads };
}
