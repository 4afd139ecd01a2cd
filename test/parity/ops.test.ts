/** Every kernel, natively and by its reference: one table of cases, every instruction set, one and two threads. */
import { afterAll, describe, expect, test } from "vitest";
import { QueueDevice, ReferenceBackend } from "../../src/tensor/index.ts";
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
      const best = await runCase(natives[0]!.device, opCase);
      for (const [output, values] of Object.entries(wanted)) {
        const tolerance = tolerances[toleranceOf(opCase, output)];
        const apart = distance(best[output]!, values);
        expect(
          isWithin(apart, tolerance),
          `${output}: ${JSON.stringify(apart)} beyond ${JSON.stringify(tolerance)}`,
        ).toBe(true);
      }
      // Threads and instruction sets change no bit.
      for (const { name, device } of natives.slice(1)) {
        const again = await runCase(device, opCase);
        for (const [output, values] of Object.entries(best)) {
          expect(distance(again[output]!, values), `${output} on ${name}`).toEqual({ frobenius: 0, max: 0 });
        }
      }
    },
  );
});
