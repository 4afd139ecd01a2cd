import { describe, expect, test } from "vitest";
import { newConfig } from "./runConfig.ts";

describe("a new config", () => {
  test("follows from a precision that is a setting as from one that is an option", () => {
    const asOption = newConfig({ preset: "unit", precision: "fp8" }, 10);
    expect(newConfig({ preset: "unit", set: ["precision=fp8"] }, 10)).toEqual(asOption);
    expect(asOption.optimizer.moments).toBe("bf16");
  });

  test("keeps what is set beside it", () => {
    const set = ["optimizer.moments=f32", "precision=fp8", "fp8.promotion=16"];
    const { optimizer, fp8 } = newConfig({ preset: "unit", set }, 10);
    expect([optimizer.moments, fp8.promotion]).toEqual(["f32", 16]);
  });
});
