/**
 * AdamW over every parameter, with a global clip: decay on matrices only.
 *
 * One kernel per parameter reads weight, gradient and moments once and writes the packed weights of the next
 * step in the same pass.
 *
 * Source: DeepSeek-V3 report, section 4.2 (AdamW, beta 0.9 / 0.95, decay 0.1, clip 1.0).
 */
import {
  adamwStep,
  ema,
  fill,
  HostScalar,
  type Parameter,
  type QueueDevice,
  type Tensor,
} from "../tensor/index.ts";
import type { OptimizerConfig } from "./config.ts";

export interface Moments {
  readonly m: Tensor;
  readonly v: Tensor;
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
    this.moments = parameters.map(({ shape }) => ({
      m: device.temporary(shape, config.moments),
      v: device.temporary(shape, config.moments),
    }));
    this.averages =
      config.emaDecay === null ? [] : parameters.map(({ shape }) => device.temporary(shape, "f32"));
  }

  /** Moments to zero, averages to the present weights. */
  initialize(): void {
    for (const { m, v } of this.moments) {
      fill(m, 0);
      fill(v, 0);
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
    const { beta1, beta2, eps, weightDecay, clipNorm, emaDecay } = this.config;
    this.parameters.forEach((parameter, i) => {
      const decay = parameter.shape.length > 1 ? weightDecay : 0;
      const settings = {
        learningRate: this.#learningRate,
        beta1,
        beta2,
        eps,
        weightDecay: decay,
        step: this.#step,
        clip: clipNorm,
      };
      adamwStep(parameter, this.moments[i]!, norm, settings);
      const average = this.averages[i];
      if (average !== undefined && emaDecay !== null) ema(average, parameter.master, emaDecay);
    });
  }

  dispose(): void {
    for (const { m, v } of this.moments) {
      m.dispose();
      v.dispose();
    }
    for (const average of this.averages) average.dispose();
  }
}
