/**
 * Rotary positions: neighbouring channels (2j, 2j + 1) of a head turn by the angle position * frequency j.
 *
 *   y_2j     = x_2j cos - x_2j+1 sin
 *   y_2j+1   = x_2j+1 cos + x_2j sin
 *
 * Pairs are neighbours, as in the released weights; the layout that rotates halves (j, j + R / 2) is another
 * convention, and mixing the two is the classic way to import a model that almost works.
 *
 * T tokens, P positions in the table, R rotary channels.
 *
 * Source: DeepSeek-V3 report, section 2.1.1, eq. (3) and (8); RoFormer (Su et al. 2021), eq. (34).
 */
import { ShapeError } from "../../base/index.ts";
import { defineKernel, type Floats, type Kernel } from "../kernel.ts";
import { requireDtype, requireShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";

/** Cosines and sines of position * frequency, [P, R / 2] each. The frequencies are the model's affair. */
export interface RopeTable {
  readonly cos: Tensor;
  readonly sin: Tensor;
}

/** Which channels turn: `width` of them from `offset`, in each of `heads` heads of `stride` channels. */
export interface RopeLayout {
  readonly heads: number;
  readonly stride: number;
  readonly offset: number;
  readonly width: number;
}

export const ropeKernel: Kernel = defineKernel({
  name: "rope",
  operands: { x: "in", cos: "in", sin: "in", positions: "in i32", y: "out" },
  params: ["T", "heads", "stride", "offset", "R", "direction"],
  reference({ x, cos, sin, positions, y }, { T, heads, stride, offset, R, direction }) {
    y.set(x.subarray(0, T * heads * stride));
    for (let t = 0; t < T; t++) {
      const angles = anglesAt(cos, sin, positions[t]!, R);
      for (let h = 0; h < heads; h++) {
        const from = (t * heads + h) * stride + offset;
        rotate(x.subarray(from, from + R), angles, direction, y.subarray(from, from + R));
      }
    }
  },
  flops: ({ T, heads, R }) => 3 * T * heads * R,
});

interface Angles {
  readonly cos: Floats;
  readonly sin: Floats;
}

/** The table's row for one position. */
export function anglesAt(cos: Floats, sin: Floats, position: number, R: number): Angles {
  const rows = cos.length / (R / 2);
  if (position < 0 || position >= rows) {
    throw new RangeError(`position ${position} lies outside the rotary table of ${rows} positions`);
  }
  const [from, to] = [position * (R / 2), (position + 1) * (R / 2)];
  return { cos: cos.subarray(from, to), sin: sin.subarray(from, to) };
}

/** Turns the pairs of x by `direction` (1 or -1) times the angles. y may be x. */
export function rotate(x: Floats, { cos, sin }: Angles, direction: number, y: Floats): void {
  for (let j = 0; j < cos.length; j++) {
    const [even, odd] = [x[2 * j]!, x[2 * j + 1]!];
    const s = direction * sin[j]!;
    y[2 * j] = even * cos[j]! - odd * s;
    y[2 * j + 1] = odd * cos[j]! + even * s;
  }
}

/** Throws unless `table` is that of `width` rotary channels and `positions` has one entry per token. */
export function requireRope(table: RopeTable, positions: Tensor, T: number, width: number, op: string): void {
  requireShape(table.cos, [table.cos.dim(0), width / 2], `${op}: cos`);
  requireShape(table.sin, table.cos.shape, `${op}: sin`);
  requireShape(positions, [T], `${op}: positions`);
  requireDtype(positions, ["i32"], `${op}: positions`);
}

/**
 * Turns the rotary channels of every head, **in place**: the result lies in x's memory, and x is gone.
 *
 * So the op that made x must not need its own output for its gradient (a projection does not). Where x must
 * survive, copy it first.
 *
 * @param x          [T, heads * stride]
 * @param positions  [T] i32, each below P
 * @returns          [T, heads * stride], sharing x's storage
 * @throws           {ShapeError} if layout, table, positions and x do not fit together
 */
export function rope(x: Tensor, table: RopeTable, positions: Tensor, layout: RopeLayout): Tensor {
  const { heads, stride, offset, width } = layout;
  const T = x.size / x.dim(-1);
  requireShape(x, [T, heads * stride], "rope: x");
  requireRope(table, positions, T, width, "rope");
  if (width % 2 !== 0 || offset + width > stride) {
    throw new ShapeError(`rope: channels ${offset} to ${offset + width} do not fit a head of ${stride}`, {
      why: "rotary channels come in pairs and lie inside their head",
      fix: "check qkNopeHeadDim and qkRopeHeadDim",
      fields: { ...layout },
    });
  }
  const { device } = x;
  const turn = (from: Tensor, y: Tensor, direction: 1 | -1): Tensor => {
    const params = { T, heads, stride, offset, R: width, direction };
    device.run(ropeKernel, { x: from, cos: table.cos, sin: table.sin, positions, y }, params);
    return y;
  };
  const make = (): void => void turn(x, x, 1);
  make();
  device.tape?.record({
    op: "rope",
    inputs: [x],
    outputs: [x],
    saved: [table.cos, table.sin, positions],
    remakes: [{ outputs: [x], reads: [], run: make }],
    // Not in place: the gradient of the output may be another op's gradient too.
    inputGrad: (dy) => [dy === null ? null : turn(dy, device.empty(dy.shape, dy.dtype), -1)],
  });
  return x;
}

export const ropeKernels: readonly Kernel[] = [ropeKernel];
