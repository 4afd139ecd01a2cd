/** A reader of safetensors for goldens, written apart from the product's so that each can betray the other's mistakes. */
export interface GoldenTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly values: Float32Array | Float64Array | Int32Array;
}

export function readSafetensors(file: Uint8Array): Map<string, GoldenTensor> {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const length = Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length))) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const tensors = new Map<string, GoldenTensor>();
  for (const [name, { dtype, shape, data_offsets: offsets }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    // A copy of its own: a Buffer would give a view into its pool, misaligned and longer.
    const bytes = new Uint8Array(file.subarray(8 + length + offsets[0], 8 + length + offsets[1]));
    tensors.set(name, { dtype, shape, values: decode(dtype, bytes.buffer) });
  }
  return tensors;
}

function decode(dtype: string, buffer: ArrayBuffer): GoldenTensor["values"] {
  if (dtype === "F32") return new Float32Array(buffer);
  if (dtype === "F64") return new Float64Array(buffer);
  if (dtype === "I32") return new Int32Array(buffer);
  if (dtype === "U8") return Int32Array.from(new Uint8Array(buffer));
  if (dtype === "I64") return Int32Array.from(new BigInt64Array(buffer), Number);
  if (dtype === "BF16") {
    const bits = Uint32Array.from(new Uint16Array(buffer), (code) => code * 65536);
    return new Float32Array(bits.buffer);
  }
  throw new Error(`no golden has dtype ${dtype}`);
}
