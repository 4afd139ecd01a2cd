import { describe, expect, expectTypeOf, test } from "vitest";
import { z } from "zod";
import { applySettings, parseConfig } from "./config.ts";
import { ConfigError } from "./errors.ts";

const schema = z
  .strictObject({
    model: z.strictObject({
      hiddenSize: z.int().min(1),
      kvLoraRank: z.int().min(1),
      qLoraRank: z.int().nullable().default(null),
      nRoutedExperts: z.int().min(0),
      nGroup: z.int().min(1),
      scoringFunc: z.enum(["sigmoid", "softmax"]).default("sigmoid"),
      ropeScaling: z
        .object({ type: z.literal("yarn"), factor: z.number() })
        .nullable()
        .default(null),
    }),
    learningRate: z.number().gt(0).max(1).default(2e-3),
    prompts: z.array(z.string()).default([]),
    decay: z
      .discriminatedUnion("kind", [
        z.object({ kind: z.literal("cosine"), steps: z.int() }),
        z.object({ kind: z.literal("none") }),
      ])
      .optional(),
    notes: z.record(z.string(), z.string()).optional(),
  })
  .refine(({ model }) => model.nRoutedExperts % model.nGroup === 0, {
    path: ["model", "nGroup"],
    error: "the experts are cut into nGroup equal groups: nGroup must divide nRoutedExperts",
    params: { fix: "set model.nGroup=1 to route without groups" },
  });

const model = { hiddenSize: 256, kvLoraRank: 64, nRoutedExperts: 16, nGroup: 4 };

/** The ConfigError that a call throws. */
function refusal(run: () => unknown): ConfigError {
  try {
    run();
  } catch (error) {
    if (error instanceof ConfigError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

const parse = (value: unknown) => parseConfig(schema, value, "train.json");

describe("parseConfig", () => {
  test("fills in defaults and freezes at every depth", () => {
    const config = parse({ model, prompts: ["The"] });
    expect(config.model.scoringFunc).toBe("sigmoid");
    expect(Object.isFrozen(config)).toBe(true);
    expect(Object.isFrozen(config.model)).toBe(true);
    expect(Object.isFrozen(config.prompts)).toBe(true);
    expectTypeOf(config.prompts).toEqualTypeOf<readonly string[]>();
  });

  test("does not freeze or share what the caller handed in", () => {
    const notes = { a: "b" };
    const config = parseConfig(z.strictObject({ open: z.unknown() }), { open: notes }, "x");
    expect(Object.isFrozen(notes)).toBe(false);
    expect(config.open).not.toBe(notes);
  });

  test("names an unknown key's path and the nearest known name", () => {
    const error = refusal(() => parse({ model: { ...model, hidenSize: 512 } }));
    expect(error.fields).toMatchObject({
      where: "train.json",
      key: "model.hidenSize",
      nearest: "hiddenSize",
    });
    expect(error.message).toMatchInlineSnapshot(`
      "train.json: model.hidenSize is not a known setting
        why: unknown settings are refused, so that a misspelt one is never ignored; model knows hiddenSize, kvLoraRank, qLoraRank, nRoutedExperts, nGroup, scoringFunc, ropeScaling
        fix: write model.hiddenSize"
    `);
  });

  test("says to remove an unknown key that resembles nothing", () => {
    const error = refusal(() => parse({ model, temperature: 1 }));
    expect(error.fix).toBe("remove temperature");
    expect(error.why).toContain("this object knows model, learningRate");
  });

  test("refuses unknown keys where the schema forgot to be strict", () => {
    const ropeScaling = { type: "yarn", factor: 40, betafast: 32 };
    expect(refusal(() => parse({ model: { ...model, ropeScaling } })).fields["key"]).toBe(
      "model.ropeScaling.betafast",
    );
    expect(refusal(() => parse({ model, decay: { kind: "cosine", step: 3 } })).fix).toBe("write decay.steps");
    expect(parse({ model, notes: { anything: "goes" } }).notes).toEqual({ anything: "goes" });
  });

  test("refuses unknown keys behind lists, pipes and lazy schemas", () => {
    const item = z.object({ name: z.string() });
    const nested = z.object({
      list: z.array(z.lazy(() => item)).readonly(),
      piped: item.transform((v) => v.name),
    });
    const good = { list: [{ name: "a" }], piped: { name: "b" } };
    expect(parseConfig(nested, good, "x")).toEqual({ list: [{ name: "a" }], piped: "b" });
    const inList = { ...good, list: [{ name: "a" }, { name: "a", nam: 1 }] };
    expect(refusal(() => parseConfig(nested, inList, "x")).fields["key"]).toBe("list[1].nam");
    const inPipe = { ...good, piped: { name: "b", size: 1 } };
    expect(refusal(() => parseConfig(nested, inPipe, "x")).fields["key"]).toBe("piped.size");
  });

  test("leaves a loose object open", () => {
    const loose = z.looseObject({ a: z.number() });
    expect(parseConfig(loose, { a: 1, b: 2 }, "x")).toEqual({ a: 1, b: 2 });
  });

  test("shows the value that is of the wrong kind", () => {
    const error = refusal(() => parse({ model: { ...model, hiddenSize: "256" } }));
    expect(error.fields).toMatchObject({ key: "model.hiddenSize", value: "256" });
    expect(error.message).toMatchInlineSnapshot(`
      "train.json: model.hiddenSize is "256"
        why: it must be a number
        fix: set model.hiddenSize: a number"
    `);
  });

  test("says what is missing", () => {
    const error = refusal(() => parse({ model: { hiddenSize: 1, nRoutedExperts: 4, nGroup: 1 } }));
    expect(error.what).toBe("train.json: model.kvLoraRank is missing");
    expect(error.fix).toBe("add model.kvLoraRank: a number");
  });

  test("states a bound, and whether the bound itself is allowed", () => {
    expect(refusal(() => parse({ model: { ...model, hiddenSize: 0 } })).why).toBe("it must be at least 1");
    expect(refusal(() => parse({ model, learningRate: 0 })).why).toBe("it must be more than 0");
    expect(refusal(() => parse({ model, learningRate: 3 })).why).toBe("it must be at most 1");
    expect(refusal(() => parse({ model: { ...model, hiddenSize: 1.5 } })).why).toBe(
      "it must be a whole number",
    );
  });

  test("suggests the nearest of the allowed values", () => {
    const error = refusal(() => parse({ model: { ...model, scoringFunc: "sigmod" } }));
    expect(error.why).toBe('it must be one of "sigmoid", "softmax"');
    expect(error.fix).toBe('write "sigmoid"');
  });

  test("names every branch of a union", () => {
    const either = z.strictObject({ size: z.union([z.literal("full"), z.int()]) });
    expect(refusal(() => parseConfig(either, { size: true }, "x")).why).toBe('it must be "full" or a number');
  });

  test("tells a rule over several settings in its author's words", () => {
    const error = refusal(() => parse({ model: { ...model, nGroup: 3 } }));
    expect(error.message).toMatchInlineSnapshot(`
      "train.json: model.nGroup is 3
        why: the experts are cut into nGroup equal groups: nGroup must divide nRoutedExperts
        fix: set model.nGroup=1 to route without groups"
    `);
  });

  test("counts further mistakes and keeps them as fields", () => {
    const error = refusal(() => parse({ model: { ...model, hiddenSize: 0, kvLoraRank: 0 } }));
    expect(error.what).toContain("and 1 more");
    expect(error.fields["issues"]).toEqual([
      { key: "model.hiddenSize", rule: "it must be at least 1" },
      { key: "model.kvLoraRank", rule: "it must be at least 1" },
    ]);
  });

  test("refuses what is no object at all", () => {
    expect(refusal(() => parse([1])).what).toBe("train.json is [1]");
    expect(refusal(() => parse(undefined)).what).toBe("train.json is missing");
  });
});

describe("applySettings", () => {
  const base = parseConfig(schema, { model, prompts: ["a", "b"] }, "preset");
  const apply = (...settings: string[]) => applySettings(schema, base, settings);

  test("reads values as JSON and otherwise as text", () => {
    const config = apply(
      "model.hiddenSize=512",
      "learningRate=1e-3",
      "model.scoringFunc=softmax",
      "prompts=[]",
    );
    expect(config.model.hiddenSize).toBe(512);
    expect(config.learningRate).toBe(1e-3);
    expect(config.model.scoringFunc).toBe("softmax");
    expect(config.prompts).toEqual([]);
  });

  test("leaves the config it started from as it was", () => {
    apply("model.hiddenSize=512");
    expect(base.model.hiddenSize).toBe(256);
  });

  test("the later of two settings wins, and text may hold equals signs", () => {
    expect(apply("learningRate=0.1", "learningRate=0.2").learningRate).toBe(0.2);
    expect(apply("notes.formula=a=b").notes).toEqual({ formula: "a=b" });
  });

  test("opens what was null or absent, and reaches items of a list", () => {
    const config = apply("model.ropeScaling.type=yarn", "model.ropeScaling.factor=40", "prompts.1=c");
    expect(config.model.ropeScaling).toEqual({ type: "yarn", factor: 40 });
    expect(config.prompts).toEqual(["a", "c"]);
  });

  test("suggests the nearest path", () => {
    const error = refusal(() => apply("model.kv_lora_rank=32"));
    expect(error.what).toBe("--set: model.kv_lora_rank is not a known setting");
    expect(error.fix).toBe("write model.kvLoraRank");
  });

  test("applies the same checks as a file", () => {
    expect(refusal(() => apply("model.nGroup=3")).what).toBe("--set model.nGroup=3: model.nGroup is 3");
    expect(refusal(() => apply("model.hiddenSize=wide")).why).toBe("it must be a number");
  });

  test.each(["model.nGroup", "=3", "model..nGroup=3", "notes.__proto__=x"])("refuses %j", (setting) => {
    expect(refusal(() => apply(setting)).what).toContain("is not of the form path=value");
  });

  test("refuses a path that leads into a plain value or past the end of a list", () => {
    expect(refusal(() => apply("learningRate.peak=1")).fields["key"]).toBe("learningRate.peak");
    expect(refusal(() => apply("prompts.2=c")).what).toBe("--set: prompts has no 2 that could be set");
    expect(refusal(() => apply("prompts.first=c")).what).toBe(
      "--set: prompts has no first that could be set",
    );
  });
});
