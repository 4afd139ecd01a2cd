/** SwiGLU feed-forward network: down( silu(gate(x)) * up(x) ). Dense layers and the shared experts. */
import {
  type Activation,
  keptAs,
  linear,
  type Parameter,
  recomputed,
  swiglu,
  type Tensor,
} from "../tensor/index.ts";
import type { ParameterFactory } from "./layers/factory.ts";
import type { Pass } from "./layers/pass.ts";

export class Mlp {
  /** [2F, D]: gate rows, then up rows. One matrix here, two in a checkpoint. */
  readonly gateUpProj: Parameter;
  readonly downProj: Parameter; // [D, F]

  constructor(make: ParameterFactory, path: string, hiddenSize: number, width: number) {
    this.gateUpProj = make.projection(`${path}.gateUpProj.weight`, [2 * width, hiddenSize], "feedForward");
    this.downProj = make.projection(`${path}.downProj.weight`, [hiddenSize, width], "feedForwardOutput");
  }

  /** @param x [T, D] */
  forward(x: Activation, { precision: { activation, held, recompute } }: Pass): Tensor {
    const gateUp = keptAs(linear(x, this.gateUpProj, activation), held.swigluInput); // [T, 2F]
    const hidden = recomputed(swiglu(gateUp), recompute); //                            [T, F]
    return linear(hidden, this.downProj, activation);
  }
}
