/**
 * Two trainings on the same data, step by step: how far apart their losses are.
 *
 * Source of the measures: DeepSeek-V3 report, section 3.3 and appendix B.1: FP8 stays within 0.25 % of BF16, curves
 * smoothed by an exponential average of 0.9.
 */
import { lineChart } from "../../src/run/report/lineChart.ts";
import { reportStyle } from "../../src/run/report/reportStyle.ts";

/** Losses of all steps, null where the guard skipped one, and the held-out loss after the last. */
export interface Training {
  readonly arm: string;
  readonly seed: number;
  readonly losses: readonly (number | null)[];
  readonly validationLoss: number;
}

export interface Distance {
  /** Mean over the last quarter of (loss - base) / base. */
  readonly lastQuarter: number;
  /** Largest |smoothed - smoothed base| / smoothed base, once the average has forgotten its beginning. */
  readonly pointwise: number;
  readonly validation: number;
}

/** Steps after which an average of 0.9 holds less than a thousandth of its first value. */
const SETTLED = 66;

/** A skipped step leaves the average where it was. */
export function smoothed(losses: readonly (number | null)[], keep: number = 0.9): readonly number[] {
  let average = losses.find((loss) => loss !== null) ?? 0;
  return losses.map((loss) => {
    if (loss !== null) average = keep * average + (1 - keep) * loss;
    return average;
  });
}

/** @throws {RangeError} if the trainings have not the same number of steps */
export function distanceOf(training: Training, base: Training): Distance {
  const steps = base.losses.length;
  if (training.losses.length !== steps)
    throw new RangeError(`${training.losses.length} steps are compared with ${steps}`);
  // Only steps that both took: a spike in one curve alone would stand in its average for thirty more.
  const [losses, baseLosses] = [takenByBoth(training, base), takenByBoth(base, training)];
  const last = losses.flatMap((loss, i) => {
    const baseLoss = baseLosses[i]!;
    return loss === null || baseLoss === null || i < Math.floor((3 * steps) / 4)
      ? []
      : [(loss - baseLoss) / baseLoss];
  });
  const [curve, baseCurve] = [smoothed(losses), smoothed(baseLosses)];
  const apart = curve.map((loss, i) => Math.abs(loss - baseCurve[i]!) / baseCurve[i]!);
  return {
    lastQuarter: last.reduce((sum, value) => sum + value, 0) / last.length,
    pointwise: Math.max(...apart.slice(SETTLED)),
    validation: (training.validationLoss - base.validationLoss) / base.validationLoss,
  };
}

function takenByBoth(training: Training, other: Training): readonly (number | null)[] {
  return training.losses.map((loss, i) => (other.losses[i] === null ? null : loss));
}

/** The smoothed curves of a training and its base, and their relative distance in per cent, as two drawings. */
export function drawCurves(training: Training, base: Training): readonly string[] {
  const points = (values: readonly number[]) => values.map((y, i) => ({ x: i + 1, y }));
  const [curve, baseCurve] = [takenByBoth(training, base), takenByBoth(base, training)].map((taken) =>
    smoothed(taken),
  ) as [readonly number[], readonly number[]];
  const losses = lineChart({
    title: `loss, seed ${base.seed}`,
    unit: "nats per token",
    curves: [
      { name: base.arm, tone: "c1", points: points(baseCurve) },
      { name: training.arm, tone: "c2", points: points(curve) },
    ],
    format: (value) => value.toFixed(2),
  });
  const apart = curve.map((loss, i) => (100 * (loss - baseCurve[i]!)) / baseCurve[i]!);
  const distance = lineChart({
    title: `${training.arm} over ${base.arm}, seed ${base.seed}`,
    unit: "per cent",
    curves: [
      {
        name: "relative",
        tone: "c3",
        points: points(apart).slice(SETTLED),
      },
    ],
    levels: [
      { name: "bound", y: 0.5 },
      { name: "bound", y: -0.5 },
    ],
    format: (value) => value.toFixed(2),
  });
  return [losses, distance].map(standalone);
}

/** The drawing with its style inside, for a page of its own. */
function standalone(figure: string): string {
  const svg = figure.slice(figure.indexOf("<svg"), figure.indexOf("</svg>") + "</svg>".length);
  return svg
    .replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    .replace(">", `><style>${reportStyle}</style>`);
}
