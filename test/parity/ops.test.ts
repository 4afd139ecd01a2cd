/** Every kernel, natively and by its reference: one table of cases, every instruction set, one and two threads. */
import { afterAll, describe, expect, test } from "vitest";
import { QueueDevice, ReferenceBackend, type Values } from "../../src/tensor/index.ts";
import { allKernels } from "../../src/tensor/ops/kernels.ts";
import { allCases } from "../support/cases/index.ts";
import { nativeDevices, nativeIsMissing } from "../support/native.ts";
import { runCase, toleranceOf } from "../support/opCase.ts";
import { distance, isWithin, tolerances } from "../support/tolerance.ts";

const reference = new QueueDevice(new ReferenceBackend(), 2 ** 33);
const natives = nativeDevices();

afterAll(async () => {
  for (const { device } of natives) await device.dispose();
});

test("every kernel has cases, and native code has every kernel", () => {
  const named = new Set(allCases.map(({ kernel }) => kernel.name));
  expect(allKernels.map(({ name }) => name).filter((name) => !named.has(name))).toEqual([]);
  for (const { kernels } of natives) {
    expect(allKernels.map(({ name }) => name).filter((name) => !kernels.includes(name))).toEqual([]);
  }
});

describe.skipIf(nativeIsMissing)("native kernels", () => {
  test.each(allCases.map((opCase) => [`${opCase.kernel.name}: ${opCase.name}`, opCase] as const))(
    "%s",
    async (_, opCase) => {
      const wanted = await runCase(reference, opCase);
      const firstOfClass = new Map<string, Record<string, Values>>();
      for (const { name, device, numericClass } of natives) {
        const results = await runCase(device, opCase);
        // Threads and instruction sets of one class change no bit.
        const first = firstOfClass.get(numericClass) ?? results;
        firstOfClass.set(numericClass, first);
        for (const [output, values] of Object.entries(wanted)) {
          const apart = distance(results[output]!, values);
          const tolerance = tolerances[toleranceOf(opCase, output, numericClass)];
          const text = `${output} on ${name}: ${JSON.stringify(apart)} beyond ${JSON.stringify(tolerance)}`;
          expect(isWithin(apart, tolerance), text).toBe(true);
          expect(distance(results[output]!, first[output]!), `${output} on ${name}`).toEqual({
            frobenius: 0,
            max: 0,
          });
        }
      }
    },
  );
});
