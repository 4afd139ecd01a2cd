/**
 * A trained tensor: its master copy, its gradient, and the packed copies that kernels read.
 *
 * The master is f32 (f64 in gradient checks). Matrices also have panels in the compute dtype, and for
 * training the panels of the transpose, for input gradients; the optimizer writes both. FP8 panels have a scale for
 * each block of 128x128 besides, and are written once the whole weight is known.
 */
import { invariant } from "../base/index.ts";
import type { Dtype } from "./dtype.ts";
import { tilesOf } from "./fp8.ts";
import type { Fp8Format } from "./fp8Format.ts";
import { absMax } from "./ops/fp8/absMax.ts";
import { quantizeWeight } from "./ops/fp8/quantizeWeight.ts";
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
  /** How it is multiplied, if `compute` is f8e4m3. */
  readonly fp8?: Fp8Format;
}

/** The packed copies of a matrix. */
interface Packed {
  readonly panels: Tensor;
  readonly panelsT: Tensor | null;
  /** [B, ceil(N / 128), ceil(K / 128)] f32, of FP8 panels */
  readonly scales: Tensor | null;
  readonly fp8: Fp8Format | null;
}

export class Parameter {
  /** The checkpoint's name, camelCased: "model.layers.3.mlp.gate". */
  readonly path: string;
  readonly shape: Shape;
  readonly master: Tensor;
  readonly grad: Tensor | null;
  readonly panels: Tensor | null;
  readonly panelsT: Tensor | null;
  readonly scales: Tensor | null;
  /** Null: multiplied in the dtype of its panels. */
  readonly fp8: Fp8Format | null;

  private constructor(path: string, master: Tensor, grad: Tensor | null, packed: Packed | null) {
    this.path = path;
    this.shape = master.shape;
    this.master = master;
    this.grad = grad;
    this.panels = packed?.panels ?? null;
    this.panelsT = packed?.panelsT ?? null;
    this.scales = packed?.scales ?? null;
    this.fp8 = packed?.fp8 ?? null;
  }

  static make(device: Device, path: string, shape: Shape, options: ParameterOptions): Parameter {
    const { compute, isTrained, fp8 = null } = options;
    invariant((compute === "f8e4m3") === (fp8 !== null), `${path} says how its ${compute} is multiplied`);
    const master = device.temporary(shape, options.master);
    const grad = isTrained ? device.temporary(shape, options.master) : null;
    if (compute === null) return new Parameter(path, master, grad, null);
    const [B, N, K] = matrixDims(shape, path);
    const panels = device.temporary([B, panelElements(N, K)], compute);
    const panelsT = isTrained ? device.temporary([B, panelElements(K, N)], compute) : null;
    const scales = fp8 === null ? null : device.temporary([B, tilesOf(N), tilesOf(K)], "f32");
    return new Parameter(path, master, grad, { panels, panelsT, scales, fp8 });
  }

  /** The same weights with a gradient buffer of their own: MTP shares embedding and head with the main model. */
  tied(path: string): Parameter {
    const grad = this.grad === null ? null : this.master.device.temporary(this.shape, this.grad.dtype);
    const { panels, panelsT, scales, fp8 } = this;
    return new Parameter(path, this.master, grad, panels === null ? null : { panels, panelsT, scales, fp8 });
  }

  /** Number of trained values. */
  get size(): number {
    return this.master.size;
  }

  /** [B, N, K]: B matrices of N outputs and K inputs; a vector is one matrix of one row. */
  get dims(): readonly [number, number, number] {
    return this.shape.length === 1 ? [1, 1, this.size] : matrixDims(this.shape, this.path);
  }

  /** Writes the packed copies anew from the master: after initialising or loading, in FP8 after every update. */
  repack(): void {
    const { master, panels, panelsT, scales, fp8, dims } = this;
    if (panels === null) return;
    if (fp8 === null || scales === null) {
      packWeight(master, panels, panelsT, ...dims);
      return;
    }
    using _scope = master.device.scope();
    const amax = fp8.weight.scaling === "tensor" ? absMax(master) : null;
    quantizeWeight(master, { panels, panelsT, scales }, dims, fp8.weight.powerOfTwo, amax);
  }

  /** Releases what this parameter owns. A tied one owns its gradient only. */
  dispose(owns: "all" | "grad" = "all"): void {
    this.grad?.dispose();
    if (owns === "grad") return;
    this.master.dispose();
    this.panels?.dispose();
    this.panelsT?.dispose();
    this.scales?.dispose();
  }
}

function matrixDims(shape: Shape, path: string): readonly [number, number, number] {
  invariant(shape.length === 2 || shape.length === 3, `${path} is a matrix or a batch of matrices`);
  const [B, N, K] = shape.length === 2 ? [1, ...shape] : shape;
  return [B!, N!, K!];
}
