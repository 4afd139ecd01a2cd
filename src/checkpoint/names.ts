/**
 * What a checkpoint calls our tensors: a pure map from parameters to the published names.
 *
 * The rule is the vocabulary's: a path in snake_case is the name. The exceptions are the matrices that we keep
 * joined and a checkpoint keeps apart; every one of them is a contiguous part of ours, so nothing is transposed.
 *
 *   ours                           in the file
 *   mlp.gateUpProj.weight          mlp.gate_proj.weight, mlp.up_proj.weight               rows 0..F, F..2F
 *   sharedExperts.gateUpProj...    shared_experts.gate_proj.weight, ....up_proj.weight     likewise
 *   mlp.experts.gateUpProj         mlp.experts.{e}.gate_proj.weight, ....up_proj.weight    likewise, per expert
 *   mlp.experts.downProj           mlp.experts.{e}.down_proj.weight                        per expert
 *
 * An MTP layer also has copies of the embedding and the head, which the released files contain.
 */
import { toSnakeCase } from "../base/index.ts";
import type { ParameterFactory } from "../model/index.ts";
import type { Shape } from "../tensor/index.ts";

/**
 * How a tensor is stored (./format.ts): `linear` is what FP8 training multiplies in FP8, `matrix` the embedding, the
 * output head and MTP's joint, `exact` the router and every vector.
 */
export type DiskKind = "linear" | "matrix" | "exact";

export interface DiskTensor {
  readonly name: string;
  readonly shape: Shape;
  readonly kind: DiskKind;
  /** The parameter or buffer that holds it, and the element at which it starts there. */
  readonly path: string;
  readonly start: number;
  /** A second copy of another tensor: written, and on reading only compared in shape. */
  readonly isCopy: boolean;
}

/** Every tensor of a model's file, in the model's order. */
export function diskTensors(factory: ParameterFactory): readonly DiskTensor[] {
  const own = factory.parameters.flatMap((parameter) => split(parameter.path, factory.wholeShape(parameter)));
  const copies = factory.tied.map(({ owner, alias }): DiskTensor => {
    return { ...whole(alias.path, owner.shape), path: owner.path, isCopy: true };
  });
  const buffers = factory.buffers.map(({ path, value }): DiskTensor => whole(path, value.shape));
  return [...own, ...buffers, ...copies];
}

function split(path: string, shape: Shape): readonly DiskTensor[] {
  const [E, N, K] = shape.length === 3 ? shape : [1, ...shape];
  if (path.endsWith(".experts.downProj")) {
    const stem = path.slice(0, -".downProj".length);
    return experts(E!, (e) => [part(path, `${stem}.${e}.downProj.weight`, [N!, K!], e * N! * K!)]);
  }
  if (path.endsWith(".experts.gateUpProj")) {
    const stem = path.slice(0, -".gateUpProj".length);
    return experts(E!, (e) => gateAndUp(path, `${stem}.${e}`, N!, K!, e * N! * K!));
  }
  if (path.endsWith(".gateUpProj.weight")) {
    return gateAndUp(path, path.slice(0, -".gateUpProj.weight".length), N!, K!, 0);
  }
  return [whole(path, shape)];
}

function experts(count: number, of: (expert: number) => readonly DiskTensor[]): readonly DiskTensor[] {
  return Array.from({ length: count }, (_, e) => of(e)).flat();
}

function gateAndUp(path: string, stem: string, N: number, K: number, start: number): readonly DiskTensor[] {
  const half = [N / 2, K];
  return [
    part(path, `${stem}.gateProj.weight`, half, start),
    part(path, `${stem}.upProj.weight`, half, start + (N / 2) * K),
  ];
}

function whole(path: string, shape: Shape): DiskTensor {
  return part(path, path, shape, 0);
}

function part(path: string, named: string, shape: Shape, start: number): DiskTensor {
  const name = named.split(".").map(toSnakeCase).join(".");
  return { name, shape, kind: kindOf(name, shape), path, start, isCopy: false };
}

/** The projections of attention and of dense, shared and routed feed-forward networks; `eh_proj` is none of them. */
const LINEAR = /\.(?:q|q_a|q_b|kv_a|kv_b|o|gate|up|down)_proj(?:_with_mqa)?\.weight$/;

function kindOf(name: string, shape: Shape): DiskKind {
  // The router is multiplied in f32, and vectors are small and read as they are.
  if (shape.length === 1 || name.endsWith(".gate.weight")) return "exact";
  return LINEAR.test(name) ? "linear" : "matrix";
}
