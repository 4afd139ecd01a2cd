/**
 * Turns what zod found into a ConfigError a person can act on: the key's path, the value that stands there, the
 * rule, and what to write instead. Read config.ts first.
 */
import type { z } from "zod";
import { ConfigError } from "./errors.ts";
import { nearestName } from "./nearest.ts";

type Issue = z.core.$ZodIssue;

/** A key that no schema knows, and the names that stand beside it. */
export interface UnknownKey {
  readonly path: readonly PropertyKey[];
  readonly known: readonly string[];
}

/** `model.layers[3].width`; empty for the value as a whole. */
export function pathText(path: readonly PropertyKey[]): string {
  return path.reduce<string>((text, part) => {
    if (typeof part === "number") return `${text}[${part}]`;
    return text === "" ? String(part) : `${text}.${String(part)}`;
  }, "");
}

export function unknownKeyError({ path, known }: UnknownKey, where: string): ConfigError {
  const key = pathText(path);
  const parent = pathText(path.slice(0, -1));
  const nearest = nearestName(String(path.at(-1)), known);
  const names = known.length === 0 ? "nothing" : known.join(", ");
  return new ConfigError(`${where}: ${key} is not a known setting`, {
    why: `unknown settings are refused, so that a misspelt one is never ignored; ${parent || "this object"} knows ${names}`,
    fix: nearest === undefined ? `remove ${key}` : `write ${pathText([...path.slice(0, -1), nearest])}`,
    fields: { where, key, nearest, known },
  });
}

/** @param issues  at least one; the first is told in full, the others are counted and kept in `fields.issues` */
export function issueError(issues: readonly Issue[], root: unknown, where: string): ConfigError {
  const issue = issues[0]!;
  const key = pathText(issue.path);
  const value = valueAt(root, issue.path);
  const subject = key === "" ? where : `${where}: ${key}`;
  const more = issues.length === 1 ? "" : ` (and ${issues.length - 1} more, named after this one is mended)`;
  const rule = ruleOf(issue);
  return new ConfigError(`${subject} ${value === undefined ? "is missing" : `is ${show(value)}`}${more}`, {
    why: rule,
    fix: fixOf(issue, value, key || "the whole value", rule),
    fields: {
      where,
      key,
      value,
      issues: issues.map((other) => ({ key: pathText(other.path), rule: ruleOf(other) })),
    },
  });
}

/** The rule that an issue breaks; what the schema's author wrote comes before what can be derived. */
function ruleOf(issue: Issue): string {
  const isDerived = /^(Invalid|Too small|Too big|Unrecognized)/.test(issue.message);
  return issue.code === "custom" || !isDerived ? issue.message : `it must be ${expectation(issue)}`;
}

function expectation(issue: Issue): string {
  switch (issue.code) {
    case "invalid_type":
      return kindText[issue.expected] ?? `of type ${issue.expected}`;
    case "invalid_value":
      return issue.values.length === 1
        ? show(issue.values[0])
        : `one of ${issue.values.map(show).join(", ")}`;
    case "too_small":
      return `${issue.inclusive ? "at least" : "more than"} ${issue.minimum}${sizeWord(issue.origin)}`;
    case "too_big":
      return `${issue.inclusive ? "at most" : "less than"} ${issue.maximum}${sizeWord(issue.origin)}`;
    case "not_multiple_of":
      return `a multiple of ${issue.divisor}`;
    case "invalid_format":
      return `text of the form ${issue.format}`;
    case "unrecognized_keys":
      return `without the unknown ${issue.keys.join(", ")}`;
    case "invalid_union":
      return [...new Set(issue.errors.map((branch) => expectation(branch[0]!)))].join(" or ");
    default:
      return `valid: ${issue.message}`;
  }
}

const kindText: Readonly<Record<string, string>> = {
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
  string: "text",
  array: "a list in [ ]",
  tuple: "a list in [ ]",
  object: "an object in { }",
  record: "an object in { }",
  null: "null",
};

function sizeWord(origin: string): string {
  if (origin === "array" || origin === "set") return " items";
  return origin === "string" ? " characters" : "";
}

function fixOf(issue: Issue, value: unknown, key: string, rule: string): string {
  const given: unknown = issue.code === "custom" ? issue.params?.["fix"] : undefined;
  if (typeof given === "string") return given;
  if (issue.code === "invalid_value" && typeof value === "string") {
    const nearest = nearestName(value, issue.values.map(String));
    if (nearest !== undefined) return `write ${JSON.stringify(nearest)}`;
  }
  const isDerived = rule.startsWith("it must be ");
  if (!isDerived) return `change ${key}`;
  return `${value === undefined ? "add" : "set"} ${key}: ${rule.slice("it must be ".length)}`;
}

function valueAt(root: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (value, part) =>
      typeof value === "object" && value !== null ? (value as Record<PropertyKey, unknown>)[part] : undefined,
    root,
  );
}

function show(value: unknown): string {
  const text = typeof value === "object" || typeof value === "string" ? JSON.stringify(value) : String(value);
  return text.length <= 80 ? text : `${text.slice(0, 77)}...`;
}
