/**
 * Makes a model's parameters: where a weight gets its path, its dtype and its first values.
 *
 * Modules say which tensors they have; the factory decides how they are stored and, when the model is
 * whole, fills them. First values depend on seed and path alone, so a model with another layer or MTP
 * module more has the same weights elsewhere.
 */
import {
  copyInto,
  type Device,
  fill,
  Parameter,
  type ParameterOptions,
  randomNormal,
  type Shape,
  type Tensor,
} from "../../tensor/index.ts";
import type { ModelConfig } from "../config.ts";
import type { ExpertShare, ExpertWeights } from "../moe/expertWeights.ts";
import type { Precision, ProjectionPart } from "../precision.ts";

/** State that is no parameter: no gradient, no decay. The router bias is the only kind. */
export interface ModelBuffer {
  readonly path: string;
  readonly value: Tensor;
}

export interface FactoryOptions {
  readonly precision: Precision;
  /** Makes gradient buffers and transposed weights too. */
  readonly isTrained: boolean;
  /** The routed experts that are held here; absent where all are. */
  readonly experts?: ExpertShare;
}

type Start = "normal" | "ones";

export class ParameterFactory {
  readonly device: Device;
  readonly config: ModelConfig;
  readonly options: FactoryOptions;
  readonly parameters: Parameter[] = [];
  readonly buffers: ModelBuffer[] = [];
  /** Gradient buffers on weights that another module owns. */
  readonly tied: { readonly owner: Parameter; readonly alias: Parameter }[] = [];
  /** The routed experts' weights, in the order of the parameters. */
  readonly experts: ExpertWeights[] = [];
  readonly #starts: Map<Parameter, Start> = new Map();

  constructor(device: Device, config: ModelConfig, options: FactoryOptions) {
    this.device = device;
    this.config = config;
    this.options = options;
  }

  /** A projection [N, K] of a layer, or one per expert [E, N, K]: in FP8 if the precision has it. */
  projection(path: string, shape: Shape, part: ProjectionPart): Parameter {
    const { fp8 } = this.options.precision;
    if (fp8 === null) return this.matrix(path, shape);
    return this.#make(path, shape, { compute: "f8e4m3", fp8: fp8[part] }, "normal");
  }

  /** The routed experts among all those of the model that a parameter holds; null for a parameter that holds none. */
  expertsOf(parameter: Parameter): Omit<ExpertShare, "senders"> | null {
    if (!this.experts.some(({ weight }) => weight === parameter)) return null;
    return this.options.experts ?? { first: 0, count: this.config.nRoutedExperts };
  }

  /** The shape that a parameter has where all experts are held. */
  wholeShape(parameter: Parameter): Shape {
    const { shape } = parameter;
    return this.expertsOf(parameter) === null ? shape : [this.config.nRoutedExperts, ...shape.slice(1)];
  }

  /** A projection of the routed experts, [E, N, K]: of those that are held here. */
  routed(path: string, [E, ...matrix]: Shape, part: ProjectionPart): ExpertWeights {
    const { experts } = this.options;
    const weight = this.projection(path, [experts?.count ?? E!, ...matrix], part);
    const others = Array.from({ length: (experts?.senders ?? 1) - 1 }, (_, i) =>
      weight.tied(`${path} (sender ${i + 1})`),
    );
    const made = { weight, bySender: [weight, ...others] };
    this.experts.push(made);
    return made;
  }

  /** A projection [N, K] that is multiplied in the compute dtype, under FP8 too: the head, MTP's join. */
  matrix(path: string, shape: Shape): Parameter {
    return this.#make(path, shape, { compute: this.options.precision.compute }, "normal");
  }

  /** A projection that is multiplied in f32 whatever the compute dtype: the router. */
  exactMatrix(path: string, shape: Shape): Parameter {
    return this.#make(path, shape, { compute: this.options.precision.router }, "normal");
  }

  /** A table [V, D] of which rows are looked up. */
  table(path: string, shape: Shape): Parameter {
    return this.#make(path, shape, { compute: null }, "normal");
  }

  /** A norm's gain [D]. */
  gain(path: string, size: number): Parameter {
    return this.#make(path, [size], { compute: null }, "ones");
  }

  /** A vector of zeros that no gradient reaches. */
  buffer(path: string, size: number): ModelBuffer {
    const buffer = { path, value: this.device.temporary([size], this.options.precision.router) };
    this.buffers.push(buffer);
    return buffer;
  }

  /** The same weight for a second user, whose gradient is kept apart and added at the end of a step. */
  share(owner: Parameter, path: string): Parameter {
    const alias = owner.tied(path);
    this.tied.push({ owner, alias });
    return alias;
  }

  /** Draws every parameter: matrices from N(0, initializerRange), gains 1, buffers 0. Source: report section 4.2. */
  initialize(seed: number): void {
    for (const parameter of this.parameters) {
      if (this.#starts.get(parameter) === "ones") fill(parameter.master, 1);
      else this.#draw(parameter, seed);
      parameter.repack();
    }
    for (const { value } of this.buffers) fill(value, 0);
  }

  #draw(parameter: Parameter, seed: number): void {
    const { master, path } = parameter;
    const std = this.config.initializerRange;
    const held = this.expertsOf(parameter);
    if (held === null || held.count === this.config.nRoutedExperts) {
      randomNormal(master, std, seed, streamOf(path));
      return;
    }
    // Numbers count from the first expert: a share is cut from all.
    using all = this.device.temporary(this.wholeShape(parameter), master.dtype);
    randomNormal(all, std, seed, streamOf(path));
    copyInto(all.rows(held.first, held.first + held.count), master);
  }

  #make(
    path: string,
    shape: Shape,
    packed: Pick<ParameterOptions, "compute" | "fp8">,
    start: Start,
  ): Parameter {
    const { precision, isTrained } = this.options;
    const parameter = Parameter.make(this.device, path, shape, {
      ...packed,
      master: precision.master,
      isTrained,
    });
    this.parameters.push(parameter);
    this.#starts.set(parameter, start);
    return parameter;
  }
}

/** FNV-1a, 32 bits: a random stream of its own for each path. */
function streamOf(path: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(path)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash;
}
