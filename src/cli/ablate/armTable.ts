/** What the seeds of an arm came to, and the arms of an ablation side by side. Pure. */
import type { Arm } from "./ablations.ts";
import { type Estimate, estimate, estimateDifference } from "./interval.ts";

export interface SeedResult {
  readonly seed: number;
  /** Of the held-out split after the last step, nats per token. */
  readonly loss: number;
  readonly bitsPerByte: number;
  /** Mean over the second half of the steps of (most loaded expert / mean) - 1, worst layer; null without experts. */
  readonly maxViolation: number | null;
  /** Of the fastest step: other programs only slow a step down. */
  readonly tokensPerSecond: number;
}

export interface ArmResult {
  readonly arm: Arm;
  readonly seeds: readonly SeedResult[];
}

export interface ArmRow {
  readonly arm: string;
  readonly settings: readonly string[];
  readonly seeds: readonly SeedResult[];
  readonly loss: Estimate;
  readonly bitsPerByte: Estimate;
  /** To the first arm, seed by seed; null of the first arm itself. */
  readonly lossDifference: Estimate | null;
  readonly maxViolation: Estimate | null;
  readonly tokensPerSecond: number;
}

export function armRow(result: ArmResult, first: ArmResult): ArmRow {
  const { arm, seeds } = result;
  const losses = seeds.map(({ loss }) => loss);
  const violations = seeds.flatMap(({ maxViolation }) => (maxViolation === null ? [] : [maxViolation]));
  const baseline = first.seeds.map(({ loss }) => loss);
  return {
    arm: arm.name,
    settings: arm.settings,
    seeds,
    loss: estimate(losses),
    bitsPerByte: estimate(seeds.map(({ bitsPerByte }) => bitsPerByte)),
    lossDifference: result === first ? null : estimateDifference(losses, baseline),
    maxViolation: violations.length === 0 ? null : estimate(violations),
    tokensPerSecond: Math.max(...seeds.map(({ tokensPerSecond }) => tokensPerSecond)),
  };
}

const headings = ["arm", "validation loss", "to the first", "bits per byte", "max violation", "tokens/s"];

/**
 * The arms as a table of text; plus and minus is half of a 95 % interval.
 *
 * @param wanted  runs of every arm; one that has fewer was stopped, and says so
 */
export function tableOf(results: readonly ArmResult[], wanted: number): string {
  const rows = results.map((result) => {
    const row = armRow(result, results[0]!);
    return [
      row.seeds.length < wanted ? `${row.arm} (${row.seeds.length} of ${wanted} runs)` : row.arm,
      withInterval(row.loss, 4),
      row.lossDifference === null ? "" : signed(row.lossDifference),
      withInterval(row.bitsPerByte, 3),
      row.maxViolation === null ? "-" : withInterval(row.maxViolation, 2),
      String(Math.round(row.tokensPerSecond)),
    ];
  });
  const widths = headings.map((heading, i) =>
    Math.max(...[heading, ...rows.map((row) => row[i]!)].map((s) => s.length)),
  );
  const line = (cells: readonly string[]): string =>
    `  ${cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join("   ")}`;
  return [headings, ...rows].map(line).join("\n");
}

function withInterval({ mean, halfWidth }: Estimate, digits: number): string {
  return halfWidth === null
    ? mean.toFixed(digits)
    : `${mean.toFixed(digits)} +- ${halfWidth.toFixed(digits)}`;
}

function signed(difference: Estimate): string {
  return `${difference.mean > 0 ? "+" : ""}${withInterval(difference, 4)}`;
}
