/**
 * Reads golden tensors: numbers that other people's programs wrote (test/golden/, with provenance).
 *
 * A reader of its own, so that goldens do not pass through the code that they judge.
 */
import { readFileSync } from "node:fs";

export interface GoldenTensor {
  readonly shape: readonly number[];
  readonly values: Float64Array;
}

interface Entry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [number, number];
}

/** @param path below test/golden, without its ending: "ops/rope" */
export function readGolden(path: string): (name: string) => GoldenTensor {
  const file = readFileSync(new URL(`../golden/${path}.safetensors`, import.meta.url));
  const headerLength = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, 8 + headerLength)) as Record<string, Entry>;
  return (name) => {
    const entry = header[name];
    if (entry === undefined) throw new Error(`${path} has ${Object.keys(header).join(", ")}, not ${name}`);
    const [from, to] = entry.data_offsets;
    const bytes = Uint8Array.from(file.subarray(8 + headerLength + from, 8 + headerLength + to));
    return { shape: entry.shape, values: widen(bytes.buffer, entry.dtype) };
  };
}

function widen(bytes: ArrayBuffer, dtype: string): Float64Array {
  switch (dtype) {
    case "F32":
      return Float64Array.from(new Float32Array(bytes));
    case "F64":
      return new Float64Array(bytes);
    case "I32":
      return Float64Array.from(new Int32Array(bytes));
    case "BF16":
      return Float64Array.from(new Uint16Array(bytes), (bits) => {
        return new Float32Array(Uint32Array.of(bits << 16).buffer)[0]!;
      });
    default:
      throw new Error(`goldens in ${dtype} are not read yet`);
  }
}
