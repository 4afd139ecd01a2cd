import { describe, expect, test } from "vitest";
import * as catalogue from "./errors.ts";
import { BaseError, CheckpointError, invariant, ShapeError } from "./errors.ts";

describe("BaseError", () => {
  const error = new ShapeError("x is [2, 3], w wants [*, 4]", {
    why: "y = x @ w^T needs equal inner dims",
    fix: "reshape x",
    fields: { shapes: [[2, 3]] },
    cause: "test",
  });

  test("its message is what, why and fix in three lines", () => {
    expect(error.message).toMatchInlineSnapshot(`
      "x is [2, 3], w wants [*, 4]
        why: y = x @ w^T needs equal inner dims
        fix: reshape x"
    `);
  });

  test("carries its operands, its cause and the name of its class", () => {
    expect(error).toMatchObject({ name: "ShapeError", code: "ERR_SHAPE", cause: "test" });
    expect(error.fields).toEqual({ shapes: [[2, 3]] });
    expect(new CheckpointError("a", { why: "b", fix: "c" }).fields).toEqual({});
  });

  test("is recognised, also when another copy of the package made it", () => {
    expect(BaseError.isInstance(error)).toBe(true);
    expect(BaseError.isInstance({ [Symbol.for("minke.BaseError")]: true })).toBe(true);
    expect([new Error("x"), null, undefined, "x"].some((other) => BaseError.isInstance(other))).toBe(false);
  });

  test("no two classes share a code", () => {
    const classes = Object.values(catalogue).filter(
      (value): value is typeof ShapeError =>
        typeof value === "function" && value.prototype instanceof BaseError,
    );
    const codes = classes.map((one) => new one("", { why: "", fix: "" }).code);
    expect(codes.length).toBeGreaterThanOrEqual(14);
    expect(new Set(codes).size).toBe(codes.length);
  });
});

describe("invariant", () => {
  test("is silent while the condition holds", () => {
    expect(() => invariant(true, "x")).not.toThrow();
  });

  test("says that it is our bug", () => {
    expect(() => invariant(false, "two plans for one step")).toThrow(
      "two plans for one step: this is a bug in minke; please report it with the line above",
    );
  });
});
