/**
 * AdamW over every parameter, or Muon over the hidden matrices and AdamW over the rest; with a global clip, and decay
 * on matrices only.
 *
 * One kernel per parameter reads weight, gradient and moments once and writes the packed weights of the next
 * step in the same pass.
 *
 * Source: DeepSeek-V3 report, section 4.2 (AdamW, beta 0.9 / 0.95, decay 0.1, clip 1.0); Muon as in Moonlight
 * (Liu et al., 2025, section 2.2), which shares AdamW's learning rate and decay.
 */
import {
  adamwStep,
  ema,
  fill,
  HostScalar,
  muonStep,
  type Parameter,
  type QueueDevice,
  type Tensor,
} from "../tensor/index.ts";
import type { OptimizerConfig } from "./config.ts";

export interface Moments {
  readonly m: Tensor;
  /** Null under Muon, which keeps one momentum only. */
  readonly v: Tensor | null;
}

/** Whether Muon updates it: a matrix between two hidden states. Its singular directions are what Muon evens out. */
export function isHiddenMatrix({ panels, path }: Parameter): boolean {
  return panels !== null && path !== "lmHead.weight";
}

/** Muon keeps one momentum, AdamW two moments. */
export function hasSecondMoment(parameter: Parameter, { kind }: OptimizerConfig): boolean {
  return kind === "adamw" || !isHiddenMatrix(parameter);
}

export class Optimizer {
  readonly config: OptimizerConfig;
  readonly parameters: readonly Parameter[];
  /** In the order of the parameters. */
  readonly moments: readonly Moments[];
  /** Running averages of the weights, in the same order; empty if none are kept. */
  readonly averages: readonly Tensor[];
  /** Updates done: AdamW's own counter. A skipped step does not count. */
  updates = 0;
  readonly #learningRate = new HostScalar();
  readonly #step = new HostScalar();

  constructor(device: QueueDevice, parameters: readonly Parameter[], config: OptimizerConfig) {
    this.config = config;
    this.parameters = parameters;
    this.moments = parameters.map((parameter) => ({
      m: device.temporary(parameter.shape, config.moments),
      v: hasSecondMoment(parameter, config) ? device.temporary(parameter.shape, config.moments) : null,
    }));
    this.averages =
      config.emaDecay === null ? [] : parameters.map(({ shape }) => device.temporary(shape, "f32"));
  }

  /** Moments to zero, averages to the present weights. */
  initialize(): void {
    for (const { m, v } of this.moments) {
      fill(m, 0);
      if (v !== null) fill(v, 0);
    }
    for (const [i, average] of this.averages.entries()) ema(average, this.parameters[i]!.master, 0);
  }

  /** Counts an update and sets its learning rate; `update` follows. */
  advance(learningRate: number): void {
    this.updates++;
    this.#step.value = this.updates;
    this.#learningRate.value = learningRate;
  }

  /**
   * The update that `advance` has counted: the same commands every time.
   *
   * @param norm  [1], the global gradient norm, from which the kernels take the clip factor
   */
  update(norm: Tensor): void {
    const { beta1, beta2, eps, momentum, weightDecay, clipNorm, emaDecay } = this.config;
    this.parameters.forEach((parameter, i) => {
      const common = {
        learningRate: this.#learningRate,
        weightDecay: parameter.shape.length > 1 ? weightDecay : 0,
        clip: clipNorm,
      };
      const { m, v } = this.moments[i]!;
      if (v === null) muonStep(parameter, m, norm, { ...common, momentum });
      else adamwStep(parameter, { m, v }, norm, { ...common, beta1, beta2, eps, step: this.#step });
      const average = this.averages[i];
      if (average !== undefined && emaDecay !== null) ema(average, parameter.master, emaDecay);
    });
  }

  dispose(): void {
    for (const { m, v } of this.moments) {
      m.dispose();
      v?.dispose();
    }
    for (const average of this.averages) average.dispose();
  }
}
