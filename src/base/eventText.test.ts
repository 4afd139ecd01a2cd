import { describe, expect, test } from "vitest";
import { ConfigError, RunError } from "./errors.ts";
import { stampEvent } from "./events.ts";
import { describeError, finiteOrNull, formatEvent, parseEvent } from "./eventText.ts";

const phase = stampEvent({ type: "run.phase", name: "data", seconds: 1.5 }, new Date(0));

describe("stampEvent", () => {
  test("adds schema and an ISO time in UTC", () => {
    expect(phase).toEqual({
      schema: 1,
      time: "1970-01-01T00:00:00.000Z",
      type: "run.phase",
      name: "data",
      seconds: 1.5,
    });
  });
});

describe("formatEvent and parseEvent", () => {
  test("an event survives the way through text", () => {
    expect(parseEvent(formatEvent(phase), "x")).toEqual(phase);
  });

  test("text with line breaks stays on one line", () => {
    const sample = stampEvent({ type: "sample.generated", step: 1, prompt: "a\nb", text: "\u2028c\r\n" });
    expect(formatEvent(sample)).not.toMatch(/[\r\n]/);
    expect(parseEvent(formatEvent(sample), "x")).toEqual(sample);
  });

  test("a number that JSON cannot say is our bug, loudly", () => {
    const bad = stampEvent({ type: "run.phase", name: "data", seconds: Number.NaN });
    expect(() => formatEvent(bad)).toThrow(
      "seconds of the event run.phase is NaN, and JSON has no such number: this is a bug in minke",
    );
  });

  test.each(['{"schema":1,"ty', "[]", "null", "{}", '{"schema":1,"type":"run.phase"}', ""])(
    "the line %j is damaged",
    (line) => {
      expect(() => parseEvent(line, "runs/a/events.jsonl line 7")).toThrow(
        "runs/a/events.jsonl line 7 is not an event",
      );
    },
  );

  test("an event of a later version says so", () => {
    const later = JSON.stringify({ ...phase, schema: 2 });
    expect(() => parseEvent(later, "line 1")).toThrowErrorMatchingInlineSnapshot(`
      [RunError: line 1 holds an event run.phase of schema 2
        why: this version of minke knows schema 1 and not every event of later versions
        fix: read the run with the version of minke that wrote it, or a newer one]
    `);
    const unknown = JSON.stringify({ ...phase, type: "toString" });
    expect(() => parseEvent(unknown, "line 1")).toThrow(RunError);
  });
});

describe("finiteOrNull", () => {
  test("keeps what is finite and nothing else", () => {
    expect([1, -0.5, Number.NaN, Number.POSITIVE_INFINITY].map(finiteOrNull)).toEqual([1, -0.5, null, null]);
  });
});

describe("describeError", () => {
  test("keeps what, why, fix and the stable code", () => {
    expect(describeError(new ConfigError("a", { why: "b", fix: "c" }))).toEqual({
      code: "ERR_CONFIG",
      name: "ConfigError",
      what: "a",
      why: "b",
      fix: "c",
      stack: null,
    });
  });

  test("marks everything else as our bug and keeps the stack", () => {
    const record = describeError(new TypeError("x is not a function"));
    expect(record).toMatchObject({ code: "ERR_INTERNAL", name: "TypeError", what: "x is not a function" });
    expect(record.stack).toContain("eventText.test.ts");
    expect(describeError("thrown text").what).toBe("thrown text");
  });
});
