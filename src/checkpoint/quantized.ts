/** A matrix on its way to the disk in FP8: codes, and behind them their scales. */
import { quantizeBlocks, type Shape } from "../tensor/index.ts";
import { scaleName, scaleShape } from "./blockScales.ts";
import { toF32Bytes } from "./numbers.ts";
import type { TensorToWrite } from "./safetensors.ts";
import type { Band } from "./weightFiles.ts";

/**
 * @param bands  the matrix in bands of whole blocks
 * @throws       {NonFiniteError} when the codes are asked for, if a weight is NaN or infinite
 */
export function quantizedTensors(
  name: string,
  shape: Shape,
  powerOfTwo: boolean,
  bands: () => AsyncIterable<Band>,
): readonly TensorToWrite[] {
  const K = shape[1]!;
  // Known once the codes are: the writer asks in order, so that the matrix is read once.
  const scales: Float32Array[] = [];
  return [
    {
      name,
      shape,
      dtype: "F8_E4M3",
      async *bytes() {
        for await (const { values } of bands()) {
          const band = quantizeBlocks(values, values.length / K, K, name, powerOfTwo);
          scales.push(band.scales);
          yield band.codes;
        }
      },
    },
    {
      name: scaleName(name),
      shape: scaleShape(shape),
      dtype: "F32",
      async *bytes() {
        for (const band of scales.splice(0)) yield toF32Bytes(band);
      },
    },
  ];
}
