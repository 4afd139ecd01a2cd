/**
 * One table of kernel cases, three readers: equality of backends, oracles, benches.
 *
 * A case gives every operand's shape, dtype and numbers; outputs start as garbage (a large constant),
 * so that a kernel that forgets an element is seen.
 */
import type { Device, Dtype, Kernel, Shape, Tensor, Values } from "../../src/tensor/index.ts";
import type { ToleranceClass } from "./tolerance.ts";

export interface CaseOperand {
  readonly shape: Shape;
  readonly dtype: Dtype;
  /** Absent for pure outputs. */
  readonly values?: ArrayLike<number>;
}

export interface OpCase {
  /** A claim about the shapes: "3 sequences, one of them empty". */
  readonly name: string;
  readonly kernel: Kernel;
  readonly operands: Readonly<Record<string, CaseOperand | null>>;
  readonly params: Readonly<Record<string, number>>;
  /** Per output, or one for all. */
  readonly tolerance: ToleranceClass | Readonly<Record<string, ToleranceClass>>;
  /** Where AMX rounds what others do not; absent where it computes as closely as they do. */
  readonly amxTolerance?: ToleranceClass;
  /** Outputs that are scratch space and mean nothing afterwards. */
  readonly scratch?: readonly string[];
}

const GARBAGE = 12345;

/** Runs the case and returns every output's numbers. */
export async function runCase(
  device: Device & { scope(): Disposable },
  opCase: OpCase,
): Promise<Record<string, Values>> {
  using _scope = device.scope();
  const tensors: Record<string, Tensor | null> = {};
  for (const { name } of opCase.kernel.operands) {
    const operand = opCase.operands[name] ?? null;
    if (operand === null) {
      tensors[name] = null;
      continue;
    }
    const tensor = device.empty(operand.shape, operand.dtype);
    tensor.write(operand.values ?? new Float64Array(tensor.size).fill(GARBAGE));
    tensors[name] = tensor;
  }
  device.run(opCase.kernel, tensors, opCase.params, opCase.name);
  const results: Record<string, Values> = {};
  for (const { name, access } of opCase.kernel.operands) {
    const tensor = tensors[name];
    if (access === "in" || tensor == null || opCase.scratch?.includes(name)) continue;
    results[name] = await tensor.read();
  }
  return results;
}

export function toleranceOf(opCase: OpCase, output: string, numericClass: "amx" | "fma"): ToleranceClass {
  if (numericClass === "amx" && opCase.amxTolerance !== undefined) return opCase.amxTolerance;
  return typeof opCase.tolerance === "string" ? opCase.tolerance : (opCase.tolerance[output] ?? "f32");
}
