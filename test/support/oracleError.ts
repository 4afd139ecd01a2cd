/** Holds a kernel's reference, run in f64 throughout, to an oracle. */
import { makeOracleDevice } from "./gradient.ts";
import { type OpCase, runCase } from "./opCase.ts";
import { type Distance, distance } from "./tolerance.ts";

export type KernelOracle = (
  operands: Readonly<Record<string, ArrayLike<number> | null>>,
  params: Readonly<Record<string, number>>,
) => Readonly<Record<string, ArrayLike<number>>>;

/** The same case with every float operand in f64. */
export function inF64(opCase: OpCase): OpCase {
  const operands = Object.entries(opCase.operands).map(([name, operand]) => {
    if (operand === null || operand.dtype === "i32") return [name, operand] as const;
    return [name, { ...operand, dtype: "f64" as const }] as const;
  });
  return { ...opCase, operands: Object.fromEntries(operands) };
}

/** How far the reference lies from the oracle, per output; the oracle must name every output. */
export async function oracleErrors(
  opCase: OpCase,
  oracle: KernelOracle,
): Promise<Readonly<Record<string, Distance>>> {
  const actual = await runCase(makeOracleDevice(), inF64(opCase));
  const numbers = Object.entries(opCase.operands).map(([name, o]) => [name, o?.values ?? (o && [])] as const);
  const expected = oracle(Object.fromEntries(numbers), opCase.params);
  const names = new Set([...Object.keys(actual), ...Object.keys(expected)]);
  return Object.fromEntries(
    [...names].map((name) => [name, distance(actual[name] ?? [Number.NaN], expected[name] ?? [])]),
  );
}
