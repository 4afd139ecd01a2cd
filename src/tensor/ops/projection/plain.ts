/** Products with a weight in f32 or bf16, from its panels: the operands are rounded as the panels are. */
import { invariant } from "../../../base/index.ts";
import type { Parameter } from "../../parameter.ts";
import { matmulGradWeightKernel, matmulKernel } from "../matmul.ts";
import { groupedMatmulGradWeightKernel, groupedMatmulKernel } from "../moe/groupedMatmul.ts";
import { type Projection, sourceOf } from "./projection.ts";

export function plainProjection(w: Parameter): Projection {
  const { device } = w.master;
  const { panels, panelsT, grad, path } = w;
  const [E, N, K] = w.dims;
  invariant(panels !== null, `${path} has no packed copy`);
  const compute = panels.dtype === "bf16" ? 1 : 0;
  return {
    input: sourceOf,

    forward(input, groups, y) {
      const x = sourceOf(input);
      if (groups === null) {
        device.run(matmulKernel, { x, panels, addend: null, y }, { M: x.size / K, N, K }, path);
        return;
      }
      const { offsets, count: R, xRows } = groups;
      device.run(groupedMatmulKernel, { x, rows: xRows, offsets, panels, y }, { R, N, K, E }, path);
    },

    backInput(gradient, groups, dx, before = null) {
      const dy = sourceOf(gradient);
      invariant(panelsT !== null, `${path} is trained`);
      // The transpose is a weight of K outputs and N inputs.
      const sizes = { N: K, K: N };
      if (groups === null) {
        const operands = { x: dy, panels: panelsT, addend: before, y: dx };
        device.run(matmulKernel, operands, { M: dy.size / N, ...sizes }, path);
        return;
      }
      invariant(before === null, "rows of groups are summed by tokens first");
      const { offsets, count: R, dyRows } = groups;
      const operands = { x: dy, rows: dyRows, offsets, panels: panelsT, y: dx };
      device.run(groupedMatmulKernel, operands, { R, ...sizes, E }, path);
    },

    backWeight(gradient, input, groups) {
      const [dy, x] = [sourceOf(gradient), sourceOf(input)];
      if (groups === null) {
        device.run(matmulGradWeightKernel, { dy, x, dw: grad }, { T: x.size / K, N, K, compute }, path);
        return;
      }
      const { offsets, count: R, xRows, dyRows } = groups;
      const operands = { dy, dyRows, x, xRows, offsets, dw: grad };
      device.run(groupedMatmulGradWeightKernel, operands, { R, N, K, E, compute }, path);
    },
  };
}
