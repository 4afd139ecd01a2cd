/** Parameters with seeded numbers, for tests of single ops. */
import { type Device, type Dtype, Parameter, type Shape } from "../../src/tensor/index.ts";
import { normals } from "./random.ts";

/** A vector or table: read as it is, without a packed copy. */
export function makeVector(
  device: Device,
  path: string,
  shape: Shape,
  options: { readonly seed: number; readonly dtype?: Dtype; readonly isTrained?: boolean },
): Parameter {
  const { seed, dtype = "f64", isTrained = true } = options;
  const parameter = Parameter.make(device, path, shape, { compute: null, master: dtype, isTrained });
  parameter.master.write(normals(parameter.size, seed, 0.5, 1));
  parameter.grad?.write(new Float64Array(parameter.size));
  return parameter;
}
