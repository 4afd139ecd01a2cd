/** The forms in which a model's weights are stored: which tensor has which dtype, and what config.json says about it. */
import type { ModelConfig, Precision } from "../model/index.ts";
import type { DiskKind } from "./names.ts";
import type { DiskDtype } from "./safetensors.ts";

/**
 * `fp8`: the linears of the layers in E4M3 with an f32 scale per block of 128 x 128, as DeepSeek-V3 was released, all
 * other matrices in bf16. `bf16`: all matrices. `f32`: everything.
 */
export type WeightFormat = "f32" | "bf16" | "fp8";

export const weightFormats: readonly WeightFormat[] = ["f32", "bf16", "fp8"];

/** The form that keeps what a model of this precision multiplies. */
export function formatOf({ compute, fp8 }: Precision): WeightFormat {
  if (fp8 !== null) return "fp8";
  return compute === "bf16" ? "bf16" : "f32";
}

/** The dtype of a tensor. Routers and vectors are small and stay exact in every form. */
export function diskDtype(kind: DiskKind, format: WeightFormat): DiskDtype {
  if (format === "f32" || kind === "exact") return "F32";
  return format === "fp8" && kind === "linear" ? "F8_E4M3" : "BF16";
}

/** What a config says of the weights beside it. Scales that are powers of two are f32 in the file all the same. */
export function describeFormat(
  format: WeightFormat,
  powerOfTwo: boolean,
): Pick<ModelConfig, "torchDtype" | "quantizationConfig"> {
  if (format !== "fp8")
    return { torchDtype: format === "bf16" ? "bfloat16" : "float32", quantizationConfig: null };
  return {
    torchDtype: "bfloat16",
    quantizationConfig: {
      quantMethod: "fp8",
      fmt: "e4m3",
      activationScheme: "dynamic",
      weightBlockSize: [128, 128],
      ...(powerOfTwo ? { scaleFmt: "ue8m0" } : {}),
    },
  };
}
