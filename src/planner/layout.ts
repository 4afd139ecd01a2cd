/**
 * How a model is spread over a cluster and what one step holds; and what makes a layout impossible.
 *
 * world = dp x pp; ep divides dp: the experts of a stage are spread over groups of its data-parallel ranks.
 */
import { type BaseError, ConfigError } from "../base/index.ts";
import type { ModelConfig } from "../model/index.ts";
import type { Schedule } from "../parallel/index.ts";
import { type Cluster, numDevices } from "./cluster.ts";

export const schedules: readonly Schedule[] = ["dualpipe", "dualpipev", "1f1b", "zb"];

export interface TrainingLayout {
  readonly pp: number;
  readonly dp: number;
  readonly ep: number;
  readonly schedule: Schedule;
  /** Rows (sequences) in one micro-batch. */
  readonly microBatchRows: number;
}

/** What a step is made of, whatever the layout. */
export interface StepSize {
  readonly batchRows: number;
  readonly rowLength: number;
  readonly precision: "fp8" | "bf16";
}

export function microBatchesOf({ dp, microBatchRows }: TrainingLayout, { batchRows }: StepSize): number {
  return batchRows / (dp * microBatchRows);
}

/** Stages of the pipeline: DualPipeV folds two onto each rank; DualPipe has two directions over the same stages. */
export function stagesOf({ pp, schedule }: TrainingLayout): number {
  return schedule === "dualpipev" ? 2 * pp : pp;
}

/** Devices that hold a copy of the same stage's parameters and add their gradients. */
export function replicasOf({ dp, schedule }: TrainingLayout): number {
  return schedule === "dualpipe" ? 2 * dp : dp;
}

export function layoutText({ pp, dp, ep, schedule, microBatchRows }: TrainingLayout): string {
  return `pp=${pp},dp=${dp},ep=${ep} ${schedule}, ${microBatchRows} row${microBatchRows === 1 ? "" : "s"} a micro-batch`;
}

interface Planned {
  readonly config: ModelConfig;
  readonly cluster: Cluster;
  readonly layout: TrainingLayout;
  readonly size: StepSize;
}

/** The first rule that the layout breaks, as an error that says how to mend it; null if there is none. */
export function layoutProblem(
  config: ModelConfig,
  cluster: Cluster,
  layout: TrainingLayout,
  size: StepSize,
): BaseError | null {
  const planned = { config, cluster, layout, size };
  return deviceProblem(planned) ?? expertProblem(planned) ?? stepProblem(planned) ?? scheduleProblem(planned);
}

/** @param kind  the rule, for who counts refusals */
function refusal(
  layout: TrainingLayout,
  kind: string,
  text: { readonly what: string; readonly why: string; readonly fix: string },
): ConfigError {
  return new ConfigError(text.what, { why: text.why, fix: text.fix, fields: { kind, ...layout } });
}

function deviceProblem({ config, cluster, layout, size }: Planned): BaseError | null {
  const { pp, dp } = layout;
  const devices = numDevices(cluster);
  if (dp * pp !== devices) {
    return refusal(layout, "world", {
      what: `dp ${dp} times pp ${pp} is ${dp * pp}, the cluster ${cluster.name} has ${devices} devices`,
      why: "every device has one place in the layout",
      fix: nearestSplit(devices, pp),
    });
  }
  const stages = stagesOf(layout);
  if (stages > config.numHiddenLayers) {
    return refusal(layout, "stages", {
      what: `${stages} stages are more than the model's ${config.numHiddenLayers} layers`,
      why: "a stage holds a layer at the least",
      fix: `use pp=${Math.floor(config.numHiddenLayers / (stages / pp))} or less`,
    });
  }
  if (size.precision === "fp8" && cluster.device.fp8Flops === null) {
    return refusal(layout, "fp8", {
      what: "FP8 cannot be planned on a device without it",
      why: `the cluster's description gives ${cluster.device.name} no fp8Tflops`,
      fix: "use --precision bf16",
    });
  }
  return null;
}

function expertProblem({ config, cluster, layout }: Planned): BaseError | null {
  const { dp, ep } = layout;
  const { devicesPerNode } = cluster;
  const isWhole = (n: number): boolean => Math.max(n, devicesPerNode) % Math.min(n, devicesPerNode) === 0;
  const sharing = divisors(dp).filter((n) => config.nRoutedExperts % n === 0);
  if (dp % ep !== 0) {
    return refusal(layout, "ep and dp", {
      what: `ep ${ep} does not divide dp ${dp}`,
      why: "an expert group is a part of one stage's data-parallel ranks",
      fix: `use an ep that divides ${dp}: ${divisors(dp).slice(-6).join(", ")}`,
    });
  }
  if (config.nRoutedExperts % ep !== 0) {
    return refusal(layout, "experts", {
      what: `ep ${ep} does not divide ${config.nRoutedExperts} experts`,
      why: "each rank of an expert group holds equally many",
      fix: `use an ep that divides both: ${sharing.join(", ")}`,
    });
  }
  if (!isWhole(ep)) {
    return refusal(layout, "nodes", {
      what: `ep ${ep} does not fit nodes of ${devicesPerNode} devices`,
      why: "an expert group is whole nodes, or an equal part of one: its tokens cross between nodes once",
      fix: `use ep ${sharing.filter(isWhole).join(", ")}`,
    });
  }
  return null;
}

function stepProblem({ config, layout, size }: Planned): BaseError | null {
  const microBatches = microBatchesOf(layout, size);
  if (!Number.isInteger(microBatches) || microBatches < 1) {
    const unit = layout.dp * layout.microBatchRows;
    return refusal(layout, "batch", {
      what: `${size.batchRows} rows do not split into micro-batches of ${layout.microBatchRows} on ${layout.dp} data-parallel ranks`,
      why: "every data-parallel rank takes equally many",
      fix: `use --batch-rows ${Math.max(1, Math.round(size.batchRows / unit)) * unit}, or another dp`,
    });
  }
  if (size.rowLength > config.maxPositionEmbeddings) {
    return refusal(layout, "row length", {
      what: `rows of ${size.rowLength} tokens are longer than the model's context`,
      why: `maxPositionEmbeddings is ${config.maxPositionEmbeddings}`,
      fix: `use --row-length ${config.maxPositionEmbeddings} or less`,
    });
  }
  return null;
}

function scheduleProblem({ layout, size }: Planned): BaseError | null {
  const { pp, schedule } = layout;
  const microBatches = microBatchesOf(layout, size);
  if (schedule === "dualpipe" && pp % 2 !== 0) {
    return refusal(layout, "odd pp", {
      what: `dualpipe cannot have pp ${pp}: it is odd`,
      why: "micro-batches enter at both ends and meet between the two ranks in the middle",
      fix: "use an even pp, or dualpipev",
    });
  }
  if ((schedule === "dualpipe" || schedule === "dualpipev") && microBatches < 2 * pp) {
    return refusal(layout, "few micro-batches", {
      what: `${schedule} needs ${2 * pp} micro-batches for pp ${pp}, there are ${microBatches}`,
      why: "with fewer the pipeline never fills",
      fix: "use a smaller pp or micro-batch, more rows in a step, or the schedules 1f1b and zb",
    });
  }
  if (schedule === "dualpipe" && microBatches % 2 !== 0) {
    return refusal(layout, "odd micro-batches", {
      what: `dualpipe cannot have ${microBatches} micro-batches: it is odd`,
      why: "half of the micro-batches enter at each end",
      fix: "use another dp, batch or micro-batch, or dualpipev",
    });
  }
  return null;
}

export function divisors(n: number): number[] {
  const small = Array.from({ length: Math.floor(Math.sqrt(n)) }, (_, i) => i + 1).filter((d) => n % d === 0);
  return [...new Set([...small, ...small.map((d) => n / d)])].sort((a, b) => a - b);
}

function nearestSplit(devices: number, pp: number): string {
  const possible = divisors(devices);
  const near = possible.reduce((best, d) => (Math.abs(d - pp) < Math.abs(best - pp) ? d : best), 1);
  return `use for example pp=${near},dp=${devices / near}`;
}
