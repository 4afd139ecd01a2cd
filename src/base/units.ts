/**
 * Quantities as people read and write them, for terminals, reports and flags. One place, so that a step takes
 * "1m 05s" everywhere. Decimal point and comma are fixed: a log must not depend on the machine's language.
 *
 * Bytes are binary (1 KiB = 1024 B). Counts are decimal (1k = 1000).
 */
import { UsageError } from "./errors.ts";

const byteUnits = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] as const;
const countUnits = ["", "k", "M", "G", "T", "P", "E"] as const;

/** `1536` to `1.5 KiB`; three significant digits. */
export function formatBytes(bytes: number): string {
  const { value, unit } = scale(bytes, 1024, byteUnits);
  return unit === "B" ? `${Math.round(value)} B` : `${threeDigits(value)} ${unit}`;
}

/** `13_600_000` to `13.6M`; below 1000 as it is. */
export function formatCount(count: number): string {
  const { value, unit } = scale(count, 1000, countUnits);
  if (unit === "") return Number.isInteger(value) ? String(value) : threeDigits(value);
  return `${threeDigits(value)}${unit}`;
}

/** `1234567` to `1,234,567`. */
export function formatInteger(value: number): string {
  return Math.round(value)
    .toString()
    .replaceAll(/\B(?=(\d{3})+(?!\d))/g, ",");
}

/** `0.0321` to `32 ms`, `65` to `1m 05s`, `3_725` to `1h 02m`, `180_000` to `2d 02h`. */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "-";
  if (seconds < 0) return `-${formatDuration(-seconds)}`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(1)}s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return pair(whole, 60, "m", "s");
  const minutes = Math.round(seconds / 60);
  if (minutes < 24 * 60) return pair(minutes, 60, "h", "m");
  return pair(Math.round(seconds / 3600), 24, "d", "h");
}

/** `40_900_000` and `FLOP` to `40.9 MFLOP`. */
export function formatQuantity(value: number, unit: string): string {
  const scaled = scale(value, 1000, countUnits);
  return `${threeDigits(scaled.value)} ${scaled.unit}${unit}`;
}

/** `8690.4` and `tok` to `8,690 tok/s`; small rates keep three digits, from a million on there is a prefix. */
export function formatRate(perSecond: number, unit: string): string {
  const isPlain = perSecond >= 1000 && perSecond < 1e6;
  return `${isPlain ? `${formatInteger(perSecond)} ${unit}` : formatQuantity(perSecond, unit)}/s`;
}

/** `0.4213` to `42.1%`. */
export function formatShare(share: number): string {
  return `${(share * 100).toFixed(1)}%`;
}

/** A loss, a norm, a rate of learning: four significant digits, exponents only where zeros would be many. */
export function formatScalar(value: number): string {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e6)
    return value
      .toExponential(2)
      .replace("e+", "e")
      .replace(/\.?0+e/, "e");
  return size >= 1000 ? String(Math.round(value)) : value.toPrecision(4);
}

/** @throws {UsageError} `512MiB`, `2 GB`, `1.5g` and `4096` are sizes; every unit counts in steps of 1024 */
export function parseBytes(text: string): number {
  const { value, unit } = splitQuantity(text, "a size", "512MiB, 2GB or 4096");
  const power = ["", "k", "m", "g", "t", "p"].indexOf(unit.toLowerCase().replace(/i?b$/, ""));
  if (power < 0) throw badQuantity(text, "a size", "512MiB, 2GB or 4096");
  return Math.round(value * 1024 ** power);
}

/** @throws {UsageError} `250k`, `1.5M`, `1e6` and `4096` are counts */
export function parseCount(text: string): number {
  const { value, unit } = splitQuantity(text, "a count", "250k, 1.5M or 1e6");
  const power = ["", "k", "m", "g", "t", "p", "e"].indexOf(unit.toLowerCase().replace(/^b$/, "g"));
  const product = value * 1000 ** power;
  const count = Math.round(product);
  // 33.2 times a billion is no whole number in doubles, yet it means one.
  if (power < 0 || Math.abs(product - count) > 1e-12 * product)
    throw badQuantity(text, "a count", "250k, 1.5M or 1e6");
  return count;
}

const secondsOf: Readonly<Record<string, number>> = { ms: 0.001, s: 1, m: 60, min: 60, h: 3600, d: 86_400 };

/**
 * Seconds of `90s`, `1h30m`, `2.5 h`, `250ms`.
 *
 * @throws {UsageError} also for a bare number: `5` would be minutes to one reader and seconds to another
 */
export function parseDuration(text: string): number {
  const parts = [...text.trim().matchAll(/(\d+(?:\.\d+)?)\s*([a-z]+)\s*/giy)];
  const isWhole = parts.length > 0 && parts.map((part) => part[0]).join("") === text.trim();
  const sizes = parts.map((part) => Number(part[1]) * (secondsOf[part[2]!.toLowerCase()] ?? Number.NaN));
  const seconds = sizes.reduce((sum, size) => sum + size, 0);
  if (!isWhole || Number.isNaN(seconds)) throw badQuantity(text, "a duration", "90s, 1h30m or 2.5h");
  return seconds;
}

function scale<U extends string>(
  quantity: number,
  step: number,
  units: readonly U[],
): { value: number; unit: U } {
  let value = quantity;
  let power = 0;
  // 999.95 would print as "1000 B": what rounds up to a whole step belongs to the next unit.
  while (Math.abs(value) >= step - 0.0005 * step && power < units.length - 1 && Math.abs(quantity) >= step) {
    value /= step;
    power++;
  }
  return { value, unit: units[power]! };
}

function threeDigits(value: number): string {
  const size = Math.abs(value);
  if (size >= 99.95) return value.toFixed(0);
  return value.toFixed(size >= 9.995 ? 1 : 2).replace(/\.?0+$/, "");
}

function pair(whole: number, step: number, large: string, small: string): string {
  return `${Math.floor(whole / step)}${large} ${String(whole % step).padStart(2, "0")}${small}`;
}

function splitQuantity(text: string, kind: string, examples: string): { value: number; unit: string } {
  const match = /^(\d+(?:\.\d+)?(?:e\d+)?)\s*([a-z]*)$/i.exec(text.trim());
  if (match === null) throw badQuantity(text, kind, examples);
  return { value: Number(match[1]), unit: match[2]! };
}

function badQuantity(text: string, kind: string, examples: string): UsageError {
  return new UsageError(`${JSON.stringify(text)} is not ${kind}`, {
    why: `${kind} is a number with its unit`,
    fix: `write it like ${examples}`,
    fields: { text },
  });
}
