/** A reader of TensorBoard's event files for tests. */
import { expect } from "vitest";
import { crc32c } from "../../src/run/crc32c.ts";

export interface DecodedRecord {
  wallTime: number;
  step: number;
  version?: string;
  scalars: Record<string, number>;
}

/** Reads TFRecords and the few protobuf fields from their published formats; shares only crc32c with the writer. */
export function decodeTensorBoard(file: Buffer): DecodedRecord[] {
  const records: DecodedRecord[] = [];
  let at = 0;
  while (at < file.length) {
    const length = Number(file.readBigUInt64LE(at));
    expect(unmask(file.readUInt32LE(at + 8))).toBe(crc32c(file.subarray(at, at + 8)));
    const data = file.subarray(at + 12, at + 12 + length);
    expect(unmask(file.readUInt32LE(at + 12 + length))).toBe(crc32c(data));
    records.push(decodeEvent(data));
    at += 16 + length;
  }
  return records;
}

function unmask(masked: number): number {
  const rotated = (masked - 0xa282ead8) >>> 0;
  return ((rotated >>> 17) | (rotated << 15)) >>> 0;
}

function decodeEvent(data: Buffer): DecodedRecord {
  const event: DecodedRecord = { wallTime: Number.NaN, step: 0, scalars: {} };
  for (const [field, value] of fieldsOf(data)) {
    if (field === 1) event.wallTime = (value as Buffer).readDoubleLE();
    if (field === 2) event.step = value as number;
    if (field === 3) event.version = (value as Buffer).toString();
    if (field !== 5) continue;
    for (const [, item] of fieldsOf(value as Buffer)) {
      const parts = Object.fromEntries(fieldsOf(item as Buffer)) as Record<number, Buffer>;
      event.scalars[parts[1]!.toString()] = parts[2]!.readFloatLE();
    }
  }
  return event;
}

function fieldsOf(data: Buffer): [number, Buffer | number][] {
  const fields: [number, Buffer | number][] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = BigInt(data[at++]!);
      value |= (byte & 127n) << shift;
      if (byte < 128n) return Number(value);
    }
  };
  const take = (length: number): Buffer => {
    at += length;
    return data.subarray(at - length, at);
  };
  while (at < data.length) {
    const key = varint();
    const type = key & 7;
    if (type === 0) fields.push([key >>> 3, varint()]);
    else fields.push([key >>> 3, take(type === 1 ? 8 : type === 5 ? 4 : varint())]);
  }
  return fields;
}
