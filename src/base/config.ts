/**
 * The one door by which settings enter: a file, a preset with changes, `--set path=value`.
 *
 * A config is checked whole, frozen, and then handed around as it is. Unknown keys are refused even where a schema
 * forgot to be strict: a setting that is ignored in silence is the worst kind of bug in a long run.
 */
import type { z } from "zod";
import { issueError, pathText, type UnknownKey, unknownKeyError } from "./configIssue.ts";
import { ConfigError } from "./errors.ts";
import { isPlainObject } from "./json.ts";

export type DeepReadonly<T> = T extends object ? { readonly [K in keyof T]: DeepReadonly<T[K]> } : T;

/**
 * A value that obeys the schema, defaults filled in, frozen at every depth.
 *
 * A rule over several settings is a `.refine` whose `error` says why and whose `params.fix` says what to write:
 * both become the lines of the ConfigError, with `path` as its key.
 *
 * @param where  the name of the source, as the user knows it: a file's path, `--set`, `preset nano`
 * @throws       {ConfigError} with fields `where`, `key`, and `value` or `nearest`
 */
export function parseConfig<S extends z.ZodType>(
  schema: S,
  value: unknown,
  where: string,
): DeepReadonly<z.output<S>> {
  const unknownKey = findUnknownKey(schema, value, []);
  if (unknownKey !== undefined) throw unknownKeyError(unknownKey, where);
  const result = schema.safeParse(value);
  if (!result.success) throw issueError(result.error.issues, value, where);
  return deepFreeze(structuredClone(result.data)) as DeepReadonly<z.output<S>>;
}

/**
 * The config with some settings changed, under the same checks as any other config.
 *
 * @param settings  `path.to.key=value`; the value is read as JSON where it is JSON and as text where it is not;
 *                  a later setting wins over an earlier one
 * @throws          {ConfigError} if a path or value is unknown, wrong, or impossible beside the others
 * @example
 * applySettings(trainConfig, preset("nano"), ["model.nGroup=2", "learningRate.peak=1e-3"]);
 */
export function applySettings<S extends z.ZodType>(
  schema: S,
  config: unknown,
  settings: readonly string[],
  where = "--set",
): DeepReadonly<z.output<S>> {
  const changed: unknown = structuredClone(config);
  for (const setting of settings) {
    const { path, value } = parseSetting(setting, where);
    const unknownKey = findUnknownKey(schema, nested(path, value), []);
    if (unknownKey !== undefined) throw unknownKeyError(unknownKey, where);
    setAt(changed, path, value, where);
  }
  return parseConfig(schema, changed, settings.length === 0 ? where : `${where} ${settings.join(" ")}`);
}

function parseSetting(setting: string, where: string): { path: string[]; value: unknown } {
  const equals = setting.indexOf("=");
  const path = setting.slice(0, Math.max(equals, 0)).trim().split(".");
  if (equals < 0 || path.includes("") || path.includes("__proto__")) {
    throw new ConfigError(`${where}: ${JSON.stringify(setting)} is not of the form path=value`, {
      why: "a setting is the path of a key with dots between its parts, an equals sign, and the value",
      fix: `write for example ${where} model.nGroup=2`,
      fields: { where, setting },
    });
  }
  return { path, value: parseSettingValue(setting.slice(equals + 1).trim()) };
}

function parseSettingValue(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return text;
    throw error;
  }
}

function nested(path: readonly string[], value: unknown): unknown {
  return path.reduceRight<unknown>((inner, part) => ({ [part]: inner }), value);
}

function setAt(root: unknown, path: readonly string[], value: unknown, where: string): void {
  let holder = root;
  for (const [depth, part] of path.entries()) {
    const isLast = depth === path.length - 1;
    const hasKey = Array.isArray(holder) ? Number(part) < holder.length : isPlainObject(holder);
    if (!hasKey) {
      const parent = pathText(path.slice(0, depth)) || "the config";
      throw new ConfigError(`${where}: ${parent} has no ${part} that could be set`, {
        why: `${parent} is ${JSON.stringify(holder)}; an object has keys, a list has the indices of its items`,
        fix: `set ${parent} as a whole`,
        fields: { where, key: pathText(path) },
      });
    }
    const keyed = holder as Record<string, unknown>;
    if (isLast) keyed[part] = value;
    else keyed[part] ??= {};
    holder = keyed[part];
  }
}

/**
 * The first key of the value, depth first, that the schema has no place for.
 *
 * Walks objects, lists, records and the wrappers around them. Other unions than discriminated ones are left to
 * zod, which alone knows which branch was meant.
 */
function findUnknownKey(
  schema: z.core.$ZodType,
  value: unknown,
  path: readonly PropertyKey[],
): UnknownKey | undefined {
  const def = (schema as z.core.$ZodTypes)._zod.def;
  switch (def.type) {
    case "optional":
    case "nullable":
    case "default":
    case "prefault":
    case "nonoptional":
    case "readonly":
    case "catch":
      return findUnknownKey(def.innerType, value, path);
    case "pipe":
      return findUnknownKey(def.in, value, path);
    case "lazy":
      return findUnknownKey(def.getter(), value, path);
    case "array":
      return firstOf(listEntries(value), ([index, item]) =>
        findUnknownKey(def.element, item, [...path, index]),
      );
    case "record":
      return firstOf(entriesOf(value), ([key, item]) => findUnknownKey(def.valueType, item, [...path, key]));
    case "object":
      return findInObject(def, value, path);
    case "union":
      return findInUnion(def, value, path);
    default:
      return undefined;
  }
}

function findInObject(
  def: z.core.$ZodObjectDef,
  value: unknown,
  path: readonly PropertyKey[],
): UnknownKey | undefined {
  const isOpen = def.catchall !== undefined && def.catchall._zod.def.type !== "never";
  return firstOf(entriesOf(value), ([key, item]) => {
    const child = Object.hasOwn(def.shape, key) ? def.shape[key] : def.catchall;
    if (child === undefined || (child === def.catchall && !isOpen)) {
      return { path: [...path, key], known: Object.keys(def.shape) };
    }
    return findUnknownKey(child, item, [...path, key]);
  });
}

function findInUnion(
  def: z.core.$ZodUnionDef,
  value: unknown,
  path: readonly PropertyKey[],
): UnknownKey | undefined {
  const discriminator: unknown = "discriminator" in def ? def.discriminator : undefined;
  if (typeof discriminator !== "string" || !isPlainObject(value)) return undefined;
  const meant = def.options.find((option) =>
    option._zod.propValues?.[discriminator]?.has(value[discriminator] as z.core.util.Primitive),
  );
  return meant === undefined ? undefined : findUnknownKey(meant, value, path);
}

function entriesOf(value: unknown): [string, unknown][] {
  return isPlainObject(value) ? Object.entries(value) : [];
}

function listEntries(value: unknown): [number, unknown][] {
  return Array.isArray(value) ? [...value.entries()] : [];
}

function firstOf<T, R>(items: readonly T[], find: (item: T) => R | undefined): R | undefined {
  for (const item of items) {
    const found = find(item);
    if (found !== undefined) return found;
  }
  return undefined;
}

function deepFreeze<T>(value: T): T {
  if (typeof value === "object" && value !== null && !ArrayBuffer.isView(value)) {
    for (const inner of Object.values(value)) deepFreeze(inner);
    Object.freeze(value);
  }
  return value;
}
