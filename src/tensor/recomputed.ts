/** Where a model says which activations are cheaper to compute twice than to keep. Whether that is done, the tape decides. */
import type { Tensor } from "./tensor.ts";

/** Lets a tape give `tensor` back after the forward pass and make it again on the way back. Returns it. */
export function recomputed(tensor: Tensor, when: "on request" | "always" = "on request"): Tensor {
  tensor.device.tape?.recompute(tensor, when);
  return tensor;
}
