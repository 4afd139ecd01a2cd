import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { readGolden } from "../../../test/support/golden.ts";
import { gradientError, makeOracleDevice } from "../../../test/support/gradient.ts";
import { normals } from "../../../test/support/random.ts";
import { distance, tolerances } from "../../../test/support/tolerance.ts";
import { BackendError, ShapeError } from "../../base/index.ts";
import type { QueueDevice } from "../device.ts";
import { Tape } from "../tape.ts";
import { add } from "./elementwise.ts";
import { type RopeTable, rope } from "./rope.ts";

function makeTable(device: QueueDevice, P: number, frequencies: readonly number[]): RopeTable {
  const angles = Array.from({ length: P }, (_, p) => frequencies.map((f) => p * f)).flat();
  const shape = [P, frequencies.length];
  return {
    cos: device.from(angles.map(Math.cos), shape, "f64"),
    sin: device.from(angles.map(Math.sin), shape, "f64"),
  };
}

const plain = (R: number): number[] => Array.from({ length: R / 2 }, (_, j) => 10000 ** ((-2 * j) / R));

describe("rope", () => {
  test("equals PyTorch's complex product, forward and backward, up to position 163839", async () => {
    const golden = readGolden("ops/rope");
    const device = makeOracleDevice();
    const [T, heads, width] = golden("x").shape as [number, number, number];
    const frequencies = plain(width);
    // A table of the positions in use: entry i holds the angles of the i-th golden position.
    const positions = [...golden("positions").values];
    const angles = positions.flatMap((p) => frequencies.map((f) => p * f));
    const table = {
      cos: device.from(angles.map(Math.cos), [T, width / 2], "f64"),
      sin: device.from(angles.map(Math.sin), [T, width / 2], "f64"),
    };
    const rows = device.from([...positions.keys()], [T], "i32");
    const layout = { heads, stride: width, offset: 0, width };
    const x = device.from(golden("x").values, [T, heads * width], "f64");
    const zero = device.from(new Float64Array(x.size), x.shape, "f64");
    using tape = new Tape(device);
    tape.watch(x);
    const y = device.withTape(tape, () => rope(add(x, zero), table, rows, layout));
    tape.seed(y, device.from(golden("d_out").values, y.shape, "f64"));
    tape.backward();
    expect(distance(await y.read(), golden("out").values).frobenius).toBeLessThan(tolerances.f32.frobenius);
    const dx = (await tape.gradOf(x)?.read())!;
    expect(distance(dx, golden("d_x").values).frobenius).toBeLessThan(tolerances.f32.frobenius);
  });

  test("turns neighbours, as released checkpoints are laid out, not halves", async () => {
    const device = makeOracleDevice();
    const x = device.from([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], [1, 8], "f64");
    const positions = device.from([3], [1], "i32");
    const layout = { heads: 1, stride: 8, offset: 0, width: 8 };
    const y = await rope(x, makeTable(device, 4, plain(8)), positions, layout).read();
    const expected = [
      -0.1272233, -0.1838865, 0.1683929, 0.4707907, 0.4817777, 0.6147278, 0.6975969, 0.8020964,
    ];
    expect(Array.from(y, (v) => Number(v.toFixed(7)))).toEqual(expected);
  });

  test("works in place, and leaves channels outside the layout alone", async () => {
    const device = makeOracleDevice();
    const values = normals(2 * 3 * 10, 1);
    const x = device.from(values, [2, 30], "f64");
    const positions = device.from([1, 2], [2], "i32");
    const layout = { heads: 3, stride: 10, offset: 3, width: 4 };
    const y = rope(x, makeTable(device, 5, plain(4)), positions, layout);
    expect(y.storage).toBe(x.storage);
    (await y.read()).forEach((value, i) => {
      const isRotary = i % 10 >= 3 && i % 10 < 7;
      expect(value === values[i], `channel ${i}`).toBe(!isRotary);
    });
  });

  test("hands back the transposed rotation", async () => {
    const device = makeOracleDevice();
    const x = device.from(normals(3 * 2 * 9, 2), [3, 18], "f64");
    const zero = device.from(new Float64Array(x.size), x.shape, "f64");
    const positions = device.from([4, 0, 2], [3], "i32");
    const table = makeTable(device, 5, plain(6));
    const layout = { heads: 2, stride: 9, offset: 2, width: 6 };
    const build = () => [rope(add(x, zero), table, positions, layout)];
    expect((await gradientError(device, { inputs: [x], parameters: [], build })).worst).toBeLessThan(1e-8);
  });

  test("scores depend on the distance of two tokens, not on where they stand", async () => {
    const device = makeOracleDevice();
    const table = makeTable(device, 200, plain(8));
    const [q, k] = [normals(8, 3), normals(8, 4)];
    const score = async (at: number, distance: number): Promise<number> => {
      using _scope = device.scope();
      const x = device.from([...q, ...k], [2, 8], "f64");
      const positions = device.from([at + distance, at], [2], "i32");
      const y = rope(x, table, positions, { heads: 1, stride: 8, offset: 0, width: 8 });
      const [turned, other] = [await y.rows(0, 1).read(), await y.rows(1, 2).read()];
      return Array.from(turned).reduce((sum, v, i) => sum + v * other[i]!, 0);
    };
    await fc.assert(
      fc.asyncProperty(fc.nat(99), fc.nat(99), async (at, far) => {
        expect(await score(at, far)).toBeCloseTo(await score(0, far), 10);
      }),
      { numRuns: 30 },
    );
  });

  test("a position beyond the table poisons the queue and says which", async () => {
    const device = makeOracleDevice();
    const x = device.from(normals(4, 5), [1, 4], "f64");
    const positions = device.from([7], [1], "i32");
    const y = rope(x, makeTable(device, 7, plain(4)), positions, {
      heads: 1,
      stride: 4,
      offset: 0,
      width: 4,
    });
    await expect(y.read()).rejects.toThrow(BackendError);
    await expect(y.read()).rejects.toThrow(/position 7 lies outside the rotary table of 7 positions/);
  });

  test("refuses layouts that leave the head, and tables and positions that do not fit", () => {
    const device = makeOracleDevice();
    const x = device.from(normals(12, 6), [2, 6], "f64");
    const table = makeTable(device, 4, plain(4));
    const positions = device.from([0, 1], [2], "i32");
    const layout = { heads: 1, stride: 6, offset: 2, width: 4 };
    const wrong = (change: Partial<typeof layout>) => () =>
      rope(x, table, positions, { ...layout, ...change });
    expect(wrong({ offset: 3 })).toThrow(/channels 3 to 7 do not fit a head of 6/);
    expect(wrong({ heads: 2 })).toThrow(/rope: x is \[2, 6\], it must be \[2, 12\]/);
    expect(wrong({ width: 2 })).toThrow(/rope: cos is \[4, 2\], it must be \[4, 1\]/);
    const short = device.from([0], [1], "i32");
    expect(() => rope(x, table, short, layout)).toThrow(ShapeError);
    const floats = device.from([0, 1], [2], "f64");
    expect(() => rope(x, table, floats, layout)).toThrow(/positions is f64, it must be i32/);
  });
});
