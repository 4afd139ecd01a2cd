/** Golden tensors by name: numbers that other people's programs wrote (test/golden/, with provenance). */
import { readFileSync } from "node:fs";
import { readSafetensors } from "./safetensors.ts";

export interface Golden {
  readonly shape: readonly number[];
  readonly values: Float64Array;
}

/** @param path below test/golden, without its ending: "ops/rope" */
export function readGolden(path: string): (name: string) => Golden {
  const tensors = readSafetensors(readFileSync(new URL(`../golden/${path}.safetensors`, import.meta.url)));
  return (name) => {
    const tensor = tensors.get(name);
    if (tensor === undefined) throw new Error(`${path} has ${[...tensors.keys()].join(", ")}, not ${name}`);
    return { shape: tensor.shape, values: Float64Array.from(tensor.values) };
  };
}
