/** SwiGLU feed-forward network: down( silu(gate(x)) * up(x) ). Dense layers and the shared experts. */
import { linear, type Parameter, recomputed, swiglu, type Tensor } from "../tensor/index.ts";
import type { ParameterFactory } from "./layers/factory.ts";
import type { Pass } from "./layers/pass.ts";

export class Mlp {
  /** [2F, D]: gate rows, then up rows. One matrix here, two in a checkpoint. */
  readonly gateUpProj: Parameter;
  readonly downProj: Parameter; // [D, F]

  constructor(make: ParameterFactory, path: string, hiddenSize: number, width: number) {
    this.gateUpProj = make.matrix(`${path}.gateUpProj.weight`, [2 * width, hiddenSize]);
    this.downProj = make.matrix(`${path}.downProj.weight`, [hiddenSize, width]);
  }

  /** @param x [T, D] */
  forward(x: Tensor, { precision: { activation } }: Pass): Tensor {
    const hidden = recomputed(swiglu(linear(x, this.gateUpProj, activation))); // [T, F]
    return linear(hidden, this.downProj, activation);
  }
}
