import type { Device, Tensor } from "./tensor.ts";

/** Runs `build` in a scope of its own, which only the tensors that `kept` names outlive. */
export function scoped<T>(
  device: Device,
  build: () => T,
  kept: (result: T) => readonly (Tensor | null)[],
): T {
  using scope = device.scope();
  const result = build();
  for (const tensor of kept(result)) if (tensor !== null) scope.keep(tensor);
  return result;
}
