/**
 * One vocabulary in two spellings: the released config.json writes `kv_lora_rank`, TypeScript `kvLoraRank`.
 *
 * The change is a rule and never a table, so that a key nobody has thought of survives a round trip too. Names that
 * are in neither spelling (class names such as `AutoConfig`) are left as they are.
 */

const snakeName = /^[a-z][a-z0-9_]*$/;
const camelName = /^[a-z][a-zA-Z0-9_]*$/;

/** `n_routed_experts` to `nRoutedExperts`. An underscore that no letter follows stays. */
export function toCamelCase(name: string): string {
  if (!snakeName.test(name)) return name;
  return name.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

/** `nRoutedExperts` to `n_routed_experts`; the inverse of `toCamelCase`. */
export function toSnakeCase(name: string): string {
  if (!camelName.test(name)) return name;
  return name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** Renames every key of a JSON value, at every depth; values are kept. */
export function renameKeys(value: unknown, rename: (key: string) => string): unknown {
  if (Array.isArray(value)) return value.map((item) => renameKeys(item, rename));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [rename(key), renameKeys(item, rename)]),
  );
}
