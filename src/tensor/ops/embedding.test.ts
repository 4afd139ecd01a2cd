import { describe, expect, test } from "vitest";
import { gradientError, makeOracleDevice } from "../../../test/support/gradient.ts";
import { makeVector } from "../../../test/support/parameters.ts";
import { BackendError } from "../../base/index.ts";
import { bf16FromNumber, bf16ToNumber } from "../dtype.ts";
import { Tape } from "../tape.ts";
import { embedding } from "./embedding.ts";

const [V, D] = [6, 5];

describe("embedding", () => {
  test("gives each token its row, rounded to bf16 only where asked", async () => {
    const device = makeOracleDevice();
    const table = makeVector(device, "embedTokens.weight", [V, D], { seed: 1 });
    const ids = device.from([4, 0, 4], [3], "i32");
    const values = Array.from(await table.master.read());
    const rows = [4, 0, 4].flatMap((id) => values.slice(id * D, (id + 1) * D));
    expect(Array.from(await embedding(ids, table, "f64", false).read())).toEqual(rows);
    const rounded = rows.map((v) => bf16ToNumber(bf16FromNumber(v)));
    expect(Array.from(await embedding(ids, table, "f64", true).read())).toEqual(rounded);
    expect(Array.from(await embedding(ids, table, "bf16", false).read())).toEqual(rounded);
  });

  test("sums the gradients of every occurrence into the table's rows and leaves other rows alone", async () => {
    const device = makeOracleDevice();
    const table = makeVector(device, "embedTokens.weight", [V, D], { seed: 2 });
    const ids = device.from([5, 1, 5, 5, 2], [5], "i32");
    const problem = { inputs: [], parameters: [table], build: () => [embedding(ids, table, "f64", false)] };
    const { worst, of } = await gradientError(device, problem);
    expect(worst, of).toBeLessThan(1e-8);
    const rowNorms = Array.from(await table.grad!.read()).map(Math.abs);
    for (const row of [0, 3, 4]) expect(Math.max(...rowNorms.slice(row * D, (row + 1) * D))).toBe(0);
    expect(Math.min(...rowNorms.slice(5 * D))).toBeGreaterThan(0);
  });

  test("waits with the table's gradient until the weight part runs", async () => {
    const device = makeOracleDevice();
    const table = makeVector(device, "embedTokens.weight", [V, D], { seed: 3 });
    const ids = device.from([1], [1], "i32");
    using tape = new Tape(device);
    const y = device.withTape(tape, () => embedding(ids, table, "f64", false));
    tape.seed(y, device.from([1, 2, 3, 4, 5], [1, D], "f64"));
    using weights = tape.backwardInput();
    expect(Math.max(...(await table.grad!.read()))).toBe(0);
    weights.run();
    expect(Array.from((await table.grad!.read()).slice(D, 2 * D))).toEqual([1, 2, 3, 4, 5]);
  });

  test("a shared table collects each user's gradient apart", async () => {
    const device = makeOracleDevice();
    const table = makeVector(device, "embedTokens.weight", [V, D], { seed: 4 });
    const tied = table.tied("mtp.embedTokens.weight");
    tied.grad?.write(new Float64Array(V * D));
    const ids = device.from([0], [1], "i32");
    using tape = new Tape(device);
    const y = device.withTape(tape, () => embedding(ids, tied, "f64", false));
    tape.seed(y, device.from([1, 1, 1, 1, 1], [1, D], "f64"));
    tape.backward();
    expect(Math.max(...(await table.grad!.read()))).toBe(0);
    expect(Math.max(...(await tied.grad!.read()))).toBe(1);
  });

  test("an id outside the table fails with the token's place, the id and the table's size", async () => {
    for (const id of [V, -1]) {
      const device = makeOracleDevice();
      const table = makeVector(device, "embedTokens.weight", [V, D], { seed: 5 });
      const y = embedding(device.from([0, id], [2], "i32"), table, "f64", false);
      await expect(y.read()).rejects.toThrow(BackendError);
      await expect(y.read()).rejects.toThrow(`ids[1] is ${id}, the table has 6 rows`);
    }
  });

  test("takes a list of i32 and nothing else", () => {
    const device = makeOracleDevice();
    const table = makeVector(device, "embedTokens.weight", [V, D], { seed: 6 });
    const floats = device.from([0], [1], "f64");
    expect(() => embedding(floats, table, "f64", false)).toThrow(/embedTokens\.weight: ids is f64/);
    const square = device.from([0, 0, 0, 0], [2, 2], "i32");
    expect(() => embedding(square, table, "f64", false)).toThrow(/ids is \[2, 2\], it must be \[4\]/);
  });
});
