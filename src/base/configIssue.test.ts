import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { parseConfig } from "./config.ts";
import { pathText } from "./configIssue.ts";
import { ConfigError } from "./errors.ts";

/** What, why and fix of the refusal of a value. */
function told(schema: z.ZodType, value: unknown): [string, string, string] {
  try {
    parseConfig(z.strictObject({ key: schema }), { key: value }, "file");
  } catch (error) {
    if (error instanceof ConfigError) return [error.what, error.why, error.fix];
    throw error;
  }
  throw new Error("nothing was refused");
}

describe("every kind of refusal says what stands there, the rule, and what to write", () => {
  test.each<[string, z.ZodType, unknown, [string, string, string]]>([
    ["a number", z.number(), "1", ['is "1"', "it must be a number", "set key: a number"]],
    ["a whole number", z.int(), 0.5, ["is 0.5", "it must be a whole number", "set key: a whole number"]],
    ["true or false", z.boolean(), 1, ["is 1", "it must be true or false", "set key: true or false"]],
    ["text", z.string(), null, ["is null", "it must be text", "set key: text"]],
    ["a list", z.array(z.int()), {}, ["is {}", "it must be a list in [ ]", "set key: a list in [ ]"]],
    ["an object", z.object({}), [], ["is []", "it must be an object in { }", "set key: an object in { }"]],
    ["a least", z.int().min(2), 1, ["is 1", "it must be at least 2", "set key: at least 2"]],
    ["a most", z.number().lt(1), 1, ["is 1", "it must be less than 1", "set key: less than 1"]],
    [
      "a multiple",
      z.int().multipleOf(32),
      40,
      ["is 40", "it must be a multiple of 32", "set key: a multiple of 32"],
    ],
    [
      "a length",
      z.array(z.int()).min(1),
      [],
      ["is []", "it must be at least 1 items", "set key: at least 1 items"],
    ],
    ["a literal", z.literal("yarn"), "yran", ['is "yran"', 'it must be "yarn"', 'write "yarn"']],
    [
      "a date",
      z.iso.date(),
      "today",
      ['is "today"', "it must be text of the form date", "set key: text of the form date"],
    ],
    ["null or a number", z.int().nullable(), "x", ['is "x"', "it must be a number", "set key: a number"]],
  ])("%s", (_, schema, value, [what, why, fix]) => {
    expect(told(schema, value)).toEqual([`file: key ${what}`, why, fix]);
  });

  test("the words of a schema's author come before ours", () => {
    const schema = z.int().min(1, { error: "a row needs one token to predict" });
    expect(told(schema, 0)).toEqual(["file: key is 0", "a row needs one token to predict", "change key"]);
  });

  test("a long value is shown by its beginning", () => {
    const [what] = told(z.int(), "x".repeat(500));
    expect(what.length).toBeLessThan(110);
    expect(what).toMatch(/^file: key is "x+\.\.\.$/);
  });

  test("a union of objects that a strict branch refuses names the unknown key", () => {
    const schema = z.union([z.strictObject({ a: z.int() }), z.int()]);
    expect(told(schema, { a: 1, b: 2 })[1]).toContain("without the unknown b");
  });
});

describe("pathText", () => {
  test("writes keys with dots and indices in brackets", () => {
    expect(pathText(["model", "layers", 3, "width"])).toBe("model.layers[3].width");
    expect(pathText([])).toBe("");
  });
});

describe("whatever is parsed", () => {
  const schema = z.strictObject({
    hiddenSize: z.int().min(1),
    scoringFunc: z.enum(["sigmoid", "softmax"]),
    rope: z.object({ theta: z.number() }).optional(),
    list: z.array(z.object({ name: z.string() })),
  });
  const good = { hiddenSize: 4, scoringFunc: "softmax", rope: { theta: 1e4 }, list: [{ name: "a" }] };

  test("is accepted or refused with a ConfigError in three lines, never anything else", () => {
    fc.assert(
      fc.property(
        fc.jsonValue(),
        fc.constantFrom("hiddenSize", "scoringFunc", "rope", "list", ""),
        (value, key) => {
          try {
            parseConfig(schema, key === "" ? value : { ...good, [key]: value }, "file");
          } catch (error) {
            expect(error).toBeInstanceOf(ConfigError);
            const { message } = error as ConfigError;
            expect(message.split("\n  why: ")).toHaveLength(2);
            expect(message.split("\n  fix: ")).toHaveLength(2);
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  test("one letter too few in a key is answered with the key that was meant", () => {
    const keys = fc
      .constantFrom("hiddenSize", "scoringFunc", "list")
      .chain((key) =>
        fc.nat(key.length - 1).map((at) => [key, key.slice(0, at) + key.slice(at + 1)] as const),
      );
    fc.assert(
      fc.property(keys, ([key, misspelt]) => {
        const { [key as "list"]: value, ...rest } = good;
        let fix = "";
        try {
          parseConfig(schema, { ...rest, [misspelt]: value }, "file");
        } catch (error) {
          fix = (error as ConfigError).fix;
        }
        expect(fix).toBe(`write ${key}`);
      }),
    );
  });
});
