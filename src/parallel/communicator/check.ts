import { DtypeError, ShapeError } from "../../base/index.ts";
import type { Tensor } from "../../tensor/index.ts";

/** Throws unless a count is what the number of ranks wants it to be. */
export function requireSize(what: string, found: number, wanted: number): void {
  if (found === wanted) return;
  throw new ShapeError(`${what}: ${found} where ${wanted} are wanted`, {
    why: "there is one entry for each rank of the communicator",
    fix: "build it from the communicator's size",
    fields: { what, found, wanted },
  });
}

/** Throws for numbers whose sum over ranks would be rounded at every addition. */
export function requireAddable({ dtype }: Tensor): void {
  if (dtype === "f32" || dtype === "f64") return;
  throw new DtypeError(`a sum over ranks of ${dtype}`, {
    why: "sums over ranks are made in f32, whatever dtype travelled",
    fix: 'convert it first: cast(x, "f32")',
    fields: { dtype },
  });
}
