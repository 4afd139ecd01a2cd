import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { readSafetensors } from "../../test/support/safetensors.ts";
import { bf16FromNumber, bf16ToNumber } from "./dtype.ts";

describe("bf16FromNumber", () => {
  test("rounds as PyTorch does: ties, subnormals, overflow, infinities, both zeros", () => {
    const golden = readSafetensors(readFileSync("test/golden/ops/bf16.safetensors"));
    const bits = golden.get("x_bits")!.values;
    const wanted = golden.get("out_bits")!.values;
    const view = new DataView(new ArrayBuffer(4));
    let wrong = 0;
    for (let i = 0; i < bits.length; i++) {
      view.setInt32(0, bits[i]!);
      if (bf16FromNumber(view.getFloat32(0)) !== (wanted[i]! & 0xffff)) wrong++;
    }
    expect(bits.length).toBeGreaterThan(4000);
    expect(wrong).toBe(0);
  });

  test("keeps a NaN a NaN", () => {
    expect(bf16ToNumber(bf16FromNumber(Number.NaN))).toBeNaN();
  });

  test("gives back every finite code", () => {
    const codes = Array.from({ length: 0x10000 }, (_, code) => code).filter((code) =>
      Number.isFinite(bf16ToNumber(code)),
    );
    expect(codes).toHaveLength(0x10000 - 2 * 128);
    expect(codes.filter((code) => bf16FromNumber(bf16ToNumber(code)) !== code)).toEqual([]);
  });
});
