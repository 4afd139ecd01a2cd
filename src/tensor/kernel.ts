/**
 * The contract of a kernel: its name, what it reads and writes, its plain reference, its cost.
 *
 * Native code registers a kernel under the same name and takes operands and params in the same
 * order. The reference is the definition: it works on decoded numbers and is written to be read.
 */
import { invariant } from "../base/index.ts";
import type { Dtype } from "./dtype.ts";

export type Floats = Float32Array | Float64Array;
export type Values = Floats | Int32Array;

type Access = "in" | "out" | "inout";
/** `in`, `out`, `inout`; with `?` it may be absent; with ` i32` it holds integers, otherwise floats. */
export type Role = Access | `${Access}?` | `${Access} i32` | `${Access}? i32`;

type ValueOf<R extends Role> = R extends `${Access}? i32`
  ? Int32Array | null
  : R extends `${Access} i32`
    ? Int32Array
    : R extends `${Access}?`
      ? Floats | null
      : Floats;

export interface OperandSpec {
  readonly name: string;
  readonly access: Access;
  readonly isOptional: boolean;
  readonly isInteger: boolean;
}

/** What a command does with other ranks. */
export type MessagePart = "send" | "receive" | "await";

/** A kernel with its types erased: what backends, tests and benches handle. */
export interface Kernel {
  readonly name: string;
  /** Null for kernels that compute; messages are carried by what the backend is connected to. */
  readonly message: MessagePart | null;
  readonly operands: readonly OperandSpec[];
  readonly params: readonly string[];
  reference(
    values: Readonly<Record<string, Values | null>>,
    params: Readonly<Record<string, number>>,
    dtypes: Readonly<Record<string, Dtype | null>>,
  ): void;
  /** Floating-point operations, a multiply-add counted as two. */
  flops(params: Readonly<Record<string, number>>): number;
  /**
   * Bytes that must move at least once: what is read and what is written; what is updated in place counts twice.
   *
   * @param operandBytes  of each operand in order, 0 for an absent one
   */
  bytes(params: Readonly<Record<string, number>>, operandBytes: readonly number[]): number;
}

interface KernelDefinition<O extends Readonly<Record<string, Role>>, P extends readonly string[]> {
  readonly name: string;
  /** In the order in which they travel to native code. */
  readonly operands: O;
  readonly params: P;
  readonly reference: (
    operands: { readonly [K in keyof O]: ValueOf<O[K]> },
    params: { readonly [K in P[number]]: number },
    /** The storage dtypes: packed weights are laid out by them, and bf16 GEMMs round their operands. */
    dtypes: { readonly [K in keyof O]: Dtype | null },
  ) => void;
  readonly flops?: (params: { readonly [K in P[number]]: number }) => number;
  /** Only where a kernel touches a part of an operand; otherwise every operand moves whole. */
  readonly bytes?: (
    params: { readonly [K in P[number]]: number },
    operandBytes: { readonly [K in keyof O]: number },
  ) => number;
}

export function defineKernel<
  const O extends Readonly<Record<string, Role>>,
  const P extends readonly string[],
>(definition: KernelDefinition<O, P>): Kernel {
  const operands = operandSpecs(definition.operands);
  return {
    name: definition.name,
    message: null,
    operands,
    params: definition.params,
    // The two casts are the one place where names and types meet: the backend hands over exactly these keys.
    reference: definition.reference as Kernel["reference"],
    flops: (definition.flops ?? (() => 0)) as Kernel["flops"],
    bytes(params, operandBytes) {
      if (definition.bytes === undefined) return wholeOperands(operands, operandBytes);
      const named = Object.fromEntries(operands.map(({ name }, i) => [name, operandBytes[i]!]));
      return (definition.bytes as (p: typeof params, b: Record<string, number>) => number)(params, named);
    },
  };
}

/** A command of the message kind: it moves bytes of any dtype between ranks, so it has no arithmetic to define. */
export function defineMessage(
  message: MessagePart,
  name: string,
  operands: Readonly<Record<string, Role>>,
  params: readonly string[],
): Kernel {
  return {
    name,
    message,
    operands: operandSpecs(operands),
    params,
    reference: () => invariant(false, `${name} is carried out by a backend, not computed`),
    flops: () => 0,
    // What crosses to another rank is no traffic of this machine's memory bound.
    bytes: () => 0,
  };
}

function operandSpecs(operands: Readonly<Record<string, Role>>): OperandSpec[] {
  return Object.entries(operands).map(([name, role]) => ({
    name,
    access: /^[a-z]+/.exec(role)?.[0] as Access,
    isOptional: role.includes("?"),
    isInteger: role.endsWith("i32"),
  }));
}

function wholeOperands(operands: readonly OperandSpec[], bytes: readonly number[]): number {
  return operands.reduce((sum, { access }, i) => sum + (access === "inout" ? 2 : 1) * bytes[i]!, 0);
}
