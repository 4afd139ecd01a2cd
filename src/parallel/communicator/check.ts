import { CollectiveError, DtypeError, ShapeError } from "../../base/index.ts";
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

/** Throws unless `root` is a rank: a wrong one would leave every rank with what it had, in silence. */
export function requireRoot(what: string, root: number, size: number): void {
  if (Number.isInteger(root) && root >= 0 && root < size) return;
  throw new CollectiveError(`${what}: the root is rank ${root} of ${size}`, {
    why: `the communicator has ranks 0 to ${size - 1}`,
    fix: "count ranks of a group from 0, in the order in which split was given them",
    fields: { what, root, size },
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
