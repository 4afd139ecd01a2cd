/** The kernels that make and read FP8 numbers; those that multiply them are in the fp8Matmul files beside. */
import type { Kernel } from "../../kernel.ts";
import { absMaxKernel } from "./absMax.ts";
import { quantizeColumnsKernel } from "./quantizeColumns.ts";
import { dequantizeTilesKernel, quantizeTilesKernel } from "./quantizeTiles.ts";
import { quantizeWeightKernel } from "./quantizeWeight.ts";

export const quantizeKernels: readonly Kernel[] = [
  quantizeTilesKernel,
  quantizeColumnsKernel,
  dequantizeTilesKernel,
  quantizeWeightKernel,
  absMaxKernel,
];
