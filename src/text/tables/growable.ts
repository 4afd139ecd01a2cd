/** Typed arrays that grow by doubling: the same array if it is long enough, else a longer copy. */

export function growInt32(array: Int32Array, minLength: number): Int32Array {
  if (minLength <= array.length) return array;
  const longer = new Int32Array(Math.max(minLength, array.length * 2));
  longer.set(array);
  return longer;
}

export function growUint8(array: Uint8Array, minLength: number): Uint8Array {
  if (minLength <= array.length) return array;
  const longer = new Uint8Array(Math.max(minLength, array.length * 2));
  longer.set(array);
  return longer;
}
