/** What differs between the configs of several runs. */
import type { JsonObject, JsonValue } from "../base/index.ts";

export interface ConfigDifference {
  /** `model.nGroup`. */
  readonly key: string;
  /** One per run, in their order; undefined where a run does not have the setting. */
  readonly values: readonly (JsonValue | undefined)[];
}

/** A config as `key.path` to value, in its own order; lists are values. */
export function flattenConfig(config: JsonObject, prefix: string = ""): Map<string, JsonValue> {
  const flat = new Map<string, JsonValue>();
  for (const [key, value] of Object.entries(config)) {
    if (isObject(value) && Object.keys(value).length > 0) {
      for (const [path, inner] of flattenConfig(value, `${prefix}${key}.`)) flat.set(path, inner);
    } else flat.set(prefix + key, value);
  }
  return flat;
}

export function configDifferences(configs: readonly JsonObject[]): ConfigDifference[] {
  const flat = configs.map((config) => flattenConfig(config));
  const keys = new Set(flat.flatMap((one) => [...one.keys()]));
  return [...keys]
    .map((key) => ({ key, values: flat.map((one) => one.get(key)) }))
    .filter(({ values }) => new Set(values.map((value) => JSON.stringify(value))).size > 1);
}

function isObject(value: JsonValue): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
