/** How evenly the experts of a layer are used over windows of steps. Pure; the report and the tests read it. */
import type { EventOf, LayerLoad } from "../base/index.ts";

/** The most and the least loaded expert of one layer in one window, as multiples of the layer's mean load. */
export interface WindowLoad {
  readonly layer: number;
  readonly firstStep: number;
  readonly lastStep: number;
  readonly max: number;
  readonly min: number;
}

export interface WorstLoad {
  readonly layer: number;
  /** The window with the largest maximum. */
  readonly highest: WindowLoad;
  /** The window with the smallest minimum. */
  readonly lowest: WindowLoad;
}

type Step = Pick<EventOf<"step.completed">, "step" | "expertLoad">;

/**
 * Every window of `window` consecutive steps, for every MoE layer.
 *
 * A window slides by one step, so that no bad stretch hides on the border between two.
 *
 * @param window  steps in a window; fewer steps than that make one window
 * @returns       per layer, by first step
 */
export function windowLoads(steps: readonly Step[], window: number): WindowLoad[][] {
  return (steps[0]?.expertLoad ?? []).map(({ layer }) => layerWindows(steps, layer, window));
}

function layerWindows(steps: readonly Step[], layer: number, window: number): WindowLoad[] {
  const counts = steps.map((step) => countsOf(step.expertLoad, layer));
  const width = Math.min(window, steps.length);
  const sums = new Array<number>(counts[0]!.length).fill(0);
  const windows: WindowLoad[] = [];
  for (const [index, added] of counts.entries()) {
    const leaving = counts[index - width];
    for (const expert of sums.keys()) {
      sums[expert]! += (added[expert] ?? 0) - (leaving?.[expert] ?? 0);
    }
    if (index < width - 1) continue;
    const mean = sums.reduce((total, sum) => total + sum, 0) / sums.length;
    windows.push({
      layer,
      firstStep: steps[index - width + 1]!.step,
      lastStep: steps[index]!.step,
      max: Math.max(...sums) / mean,
      min: Math.min(...sums) / mean,
    });
  }
  return windows;
}

/**
 * The worst windows of each layer.
 *
 * @param skipShare  part of the steps at the beginning that does not count: the router bias needs time to find its
 *                   place; 0.2 is what this project promises about
 */
export function worstLoads(
  steps: readonly Step[],
  window: number = 100,
  skipShare: number = 0.2,
): WorstLoad[] {
  const counted = steps.slice(Math.floor(steps.length * skipShare));
  return windowLoads(counted, window).map((windows) => ({
    layer: windows[0]!.layer,
    highest: windows.reduce((worst, one) => (one.max > worst.max ? one : worst)),
    lowest: windows.reduce((worst, one) => (one.min < worst.min ? one : worst)),
  }));
}

export function countsOf(loads: readonly LayerLoad[], layer: number): readonly number[] {
  return loads.find((load) => load.layer === layer)?.counts ?? [];
}
