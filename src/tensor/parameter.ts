/**
 * A trained tensor: its master copy, its gradient, and the packed copies that kernels read.
 *
 * The master is f32 (f64 in gradient checks). Matrices also have panels in the compute dtype, and for
 * training the panels of the transpose, for input gradients; the optimizer writes both.
 */
import { invariant } from "../base/index.ts";
import type { Dtype } from "./dtype.ts";
import { packWeight } from "./ops/packWeight.ts";
import { panelElements } from "./panels.ts";
import type { Shape } from "./shape.ts";
import type { Device, Tensor } from "./tensor.ts";

export interface ParameterOptions {
  /** dtype of the packed copies; null for vectors and tables, which are read as they are */
  readonly compute: Dtype | null;
  readonly master: Dtype;
  /** Whether gradients will be asked for: makes the gradient buffer and the transposed panels. */
  readonly isTrained: boolean;
}

export class Parameter {
  /** The checkpoint's name, camelCased: "model.layers.3.mlp.gate". */
  readonly path: string;
  readonly shape: Shape;
  readonly master: Tensor;
  readonly grad: Tensor | null;
  readonly panels: Tensor | null;
  readonly panelsT: Tensor | null;

  private constructor(
    path: string,
    master: Tensor,
    grad: Tensor | null,
    panels: Tensor | null,
    panelsT: Tensor | null,
  ) {
    this.path = path;
    this.shape = master.shape;
    this.master = master;
    this.grad = grad;
    this.panels = panels;
    this.panelsT = panelsT;
  }

  static make(device: Device, path: string, shape: Shape, options: ParameterOptions): Parameter {
    const { compute, isTrained } = options;
    const master = device.temporary(shape, options.master);
    const grad = isTrained ? device.temporary(shape, options.master) : null;
    if (compute === null) return new Parameter(path, master, grad, null, null);
    const [B, N, K] = matrixDims(shape, path);
    const panels = device.temporary([B, panelElements(N, K)], compute);
    const panelsT = isTrained ? device.temporary([B, panelElements(K, N)], compute) : null;
    return new Parameter(path, master, grad, panels, panelsT);
  }

  /** The same weights with a gradient buffer of their own: MTP shares embedding and head with the main model. */
  tied(path: string): Parameter {
    const grad = this.grad === null ? null : this.master.device.temporary(this.shape, this.grad.dtype);
    return new Parameter(path, this.master, grad, this.panels, this.panelsT);
  }

  /** Number of trained values. */
  get size(): number {
    return this.master.size;
  }

  /** [B, N, K]: B matrices of N outputs and K inputs; a vector is one matrix of one row. */
  get dims(): readonly [number, number, number] {
    return this.shape.length === 1 ? [1, 1, this.size] : matrixDims(this.shape, this.path);
  }

  /** Writes the packed copies anew from the master: after initialising or loading. */
  repack(): void {
    if (this.panels === null) return;
    const [B, N, K] = this.dims;
    packWeight(this.master, this.panels, this.panelsT, B, N, K);
  }

  /** Releases what this parameter owns. A tied one owns its gradient only. */
  dispose(owns: "all" | "grad" = "all"): void {
    this.grad?.dispose();
    if (owns === "grad") return;
    this.master.dispose();
    this.panels?.dispose();
    this.panelsT?.dispose();
  }
}

function matrixDims(shape: Shape, path: string): readonly [number, number, number] {
  invariant(shape.length === 2 || shape.length === 3, `${path} is a matrix or a batch of matrices`);
  const [B, N, K] = shape.length === 2 ? [1, ...shape] : shape;
  return [B!, N!, K!];
}
