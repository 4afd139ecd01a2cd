/** Which machines give a run the same bits. */
import type { TrainConfig } from "../train/index.ts";
import type { OpenDevice } from "./openDevice.ts";

/**
 * Runs of one class give equal bits: AMX sums bf16 and FP8 products in an order of its own, f32 is one class everywhere.
 *
 * Source: docs/kernels.md, "Same bits", rule 2.
 */
export function numericClass(
  { native }: { readonly native: Pick<NonNullable<OpenDevice["native"]>, "isa"> | null },
  precision: TrainConfig["precision"],
): string {
  if (native === null) return "reference";
  return native.isa === "amx" && precision !== "f32" ? "amx" : "fma";
}
