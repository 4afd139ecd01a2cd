/**
 * Gradients against central differences in f64: of every input and every parameter, in full.
 *
 * The loss is a fixed random projection of the outputs, so that no gradient can hide in a sum.
 */
import { type Parameter, QueueDevice, ReferenceBackend, Tape, type Tensor } from "../../src/tensor/index.ts";
import { normals } from "./random.ts";
import { distance } from "./tolerance.ts";

export interface GradientProblem {
  /** Differentiable inputs, f64. */
  readonly inputs: readonly Tensor[];
  readonly parameters: readonly Parameter[];
  /** Builds the op anew from the inputs' and parameters' present values. */
  build(): readonly Tensor[];
}

export function makeOracleDevice(): QueueDevice {
  return new QueueDevice(new ReferenceBackend(), 2 ** 33);
}

/** The largest relative Frobenius error over all inputs and parameters, with its owner's name. */
export async function gradientError(
  device: QueueDevice,
  problem: GradientProblem,
): Promise<{ readonly worst: number; readonly of: string }> {
  const loss = async (): Promise<number> => {
    using _scope = device.scope();
    for (const parameter of problem.parameters) parameter.repack();
    const outputs = problem.build();
    const values = await Promise.all(outputs.map((output) => output.read()));
    return values.reduce((sum, numbers, o) => sum + dot(numbers, projection(numbers.length, o)), 0);
  };

  for (const parameter of problem.parameters) parameter.grad?.write(new Float64Array(parameter.size));
  const analytic = await analyticGradients(device, problem);
  let worst = { worst: 0, of: "nothing" };
  for (const [name, tensor] of named(problem)) {
    const values = await tensor.read();
    const numeric = new Float64Array(values.length);
    for (let i = 0; i < values.length; i++) {
      const x = values[i]!;
      const h = 1e-5 * Math.max(1, Math.abs(x));
      const shifted = async (dx: number): Promise<number> => {
        values[i] = x + dx;
        tensor.write(values);
        return loss();
      };
      // Fourth order: the error of the difference stays below 1e-9 of the gradient.
      const far = (await shifted(2 * h)) - (await shifted(-2 * h));
      const near = (await shifted(h)) - (await shifted(-h));
      numeric[i] = (8 * near - far) / (12 * h);
      values[i] = x;
    }
    tensor.write(values);
    const { frobenius } = distance(analytic.get(name)!, numeric);
    if (frobenius >= worst.worst) worst = { worst: frobenius, of: name };
  }
  return worst;
}

async function analyticGradients(
  device: QueueDevice,
  problem: GradientProblem,
): Promise<Map<string, ArrayLike<number>>> {
  using tape = new Tape(device);
  using _scope = device.scope();
  for (const parameter of problem.parameters) parameter.repack();
  const outputs = device.withTape(tape, () => problem.build());
  for (const input of problem.inputs) tape.watch(input);
  outputs.forEach((output, o) => {
    tape.seed(output, device.from(projection(output.size, o), output.shape, output.dtype));
  });
  tape.backward();
  const result = new Map<string, ArrayLike<number>>();
  for (const [i, input] of problem.inputs.entries()) {
    result.set(`input ${i}`, (await tape.gradOf(input)?.read()) ?? new Float64Array(input.size));
  }
  for (const parameter of problem.parameters) {
    result.set(parameter.path, (await parameter.grad?.read()) ?? new Float64Array(parameter.size));
  }
  return result;
}

function named(problem: GradientProblem): [string, Tensor][] {
  return [
    ...problem.inputs.map((input, i): [string, Tensor] => [`input ${i}`, input]),
    ...problem.parameters.map((parameter): [string, Tensor] => [parameter.path, parameter.master]),
  ];
}

function projection(length: number, output: number): Float64Array {
  return normals(length, 1000 + output);
}

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}
