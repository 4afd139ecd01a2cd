import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type AttentionSizes, attentionOracle } from "../../../test/oracle/attention.ts";
import { readGolden } from "../../../test/support/golden.ts";
import { gradientError, makeOracleDevice } from "../../../test/support/gradient.ts";
import { normals } from "../../../test/support/random.ts";
import { distance, tolerances } from "../../../test/support/tolerance.ts";
import { BackendError, DtypeError, ShapeError } from "../../base/index.ts";
import type { QueueDevice } from "../device.ts";
import { Tape } from "../tape.ts";
import type { Tensor } from "../tensor.ts";
import { attention, attentionKernel } from "./attention.ts";
import { cast } from "./elementwise.ts";

const dimsOf = ({ H, N, R, V }: AttentionSizes) => ({ heads: H, nope: N, rope: R, value: V });

function sizes(lengths: readonly number[], H: number, N: number, R: number, V: number): AttentionSizes {
  const offsets = [0];
  for (const length of lengths) offsets.push(offsets.at(-1)! + length);
  return { T: offsets.at(-1)!, H, N, R, V, scale: 1 / Math.sqrt(N + R), offsets };
}

function makeInputs(device: QueueDevice, { T, H, N, R, V, offsets }: AttentionSizes, seed: number = 1) {
  return {
    q: device.from(normals(T * H * (N + R), seed), [T, H * (N + R)], "f64"),
    kv: device.from(normals(T * H * (N + V), seed + 1), [T, H * (N + V)], "f64"),
    kRope: device.from(normals(T * R, seed + 2), [T, R], "f64"),
    seqOffsets: device.from(offsets, [offsets.length], "i32"),
  };
}

function attend(inputs: ReturnType<typeof makeInputs>, problem: AttentionSizes): Tensor {
  const { q, kv, kRope, seqOffsets } = inputs;
  return attention(q, kv, kRope, seqOffsets, dimsOf(problem), problem.scale, "f64");
}

/** Reads the parts of a golden [T, H, width] tensor side by side, as our operands lie. */
function joined(
  parts: readonly { readonly shape: readonly number[]; readonly values: Float64Array }[],
): Float64Array {
  const [T, H] = parts[0]!.shape as [number, number];
  const rows: number[] = [];
  for (let row = 0; row < T * H; row++) {
    for (const { shape, values } of parts) {
      rows.push(...values.subarray(row * shape[2]!, (row + 1) * shape[2]!));
    }
  }
  return Float64Array.from(rows);
}

describe("attention", () => {
  test("equals the report's equations for any sequences and heads", async () => {
    const device = makeOracleDevice();
    const problems = fc.record({
      lengths: fc.array(fc.integer({ min: 0, max: 7 }), { minLength: 1, maxLength: 4 }),
      heads: fc.integer({ min: 1, max: 3 }),
      nope: fc.integer({ min: 0, max: 5 }),
      rope: fc.integer({ min: 1, max: 4 }),
      value: fc.integer({ min: 1, max: 5 }),
      seed: fc.nat(),
    });
    await fc.assert(
      fc.asyncProperty(problems, async ({ lengths, heads, nope, rope, value, seed }) => {
        using _scope = device.scope();
        const problem = sizes(lengths, heads, nope, rope, value);
        const inputs = makeInputs(device, problem, seed);
        const [q, kv, kRope] = await Promise.all([inputs.q.read(), inputs.kv.read(), inputs.kRope.read()]);
        const { o } = attentionOracle({ q, kv, kRope }, problem);
        const actual = await attend(inputs, problem).read();
        expect(distance(actual, o).max).toBeLessThan(tolerances.oracle.max);
      }),
      { numRuns: 60 },
    );
  });

  test("keeps the log-sum-exp of each row's scaled scores", async () => {
    const device = makeOracleDevice();
    const problem = sizes([4, 3], 2, 4, 2, 3);
    const { T, H, N, R, V, scale } = problem;
    const inputs = makeInputs(device, problem);
    const [o, lse] = [device.empty([T, H * V], "f64"), device.empty([H, T], "f64")];
    device.run(attentionKernel, { ...inputs, o, lse }, { T, H, N, R, V, S: 2, scale });
    const [q, kv, kRope] = await Promise.all([inputs.q.read(), inputs.kv.read(), inputs.kRope.read()]);
    const expected = attentionOracle({ q, kv, kRope }, problem).lse;
    expect(distance(await lse.read(), expected).max).toBeLessThan(tolerances.oracle.max);
  });

  test("hands back the gradients of queries, keys, values and the shared rotary key", async () => {
    const device = makeOracleDevice();
    const problem = sizes([1, 5, 0, 4], 2, 3, 2, 4);
    const inputs = makeInputs(device, problem);
    const { worst, of } = await gradientError(device, {
      inputs: [inputs.q, inputs.kv, inputs.kRope],
      parameters: [],
      build: () => [attend(inputs, problem)],
    });
    expect(worst, of).toBeLessThan(1e-7);
  });

  test("equals PyTorch, forward and backward, over five sequences", async () => {
    const golden = readGolden("ops/attention");
    const device = makeOracleDevice();
    const [T, H, N] = golden("q_nope").shape as [number, number, number];
    const [R, V] = [golden("k_rope").shape[1]!, golden("v").shape[2]!];
    const offsets = [...golden("sequence_offsets").values];
    const dims = { heads: H, nope: N, rope: R, value: V };
    // Leaves in f32, as the golden file has them; the op in f64.
    const leaf = (values: Float64Array, width: number): Tensor => device.from(values, [T, width], "f32");
    const q = leaf(joined([golden("q_nope"), golden("q_rope")]), H * (N + R));
    const kv = leaf(joined([golden("k_nope"), golden("v")]), H * (N + V));
    const kRope = leaf(golden("k_rope").values, R);
    const seqOffsets = device.from(offsets, [offsets.length], "i32");
    using tape = new Tape(device);
    for (const tensor of [q, kv, kRope]) tape.watch(tensor);
    const o = device.withTape(tape, () => {
      const [wideQ, wideKv, wideRope] = [cast(q, "f64"), cast(kv, "f64"), cast(kRope, "f64")];
      return attention(wideQ, wideKv, wideRope, seqOffsets, dims, (N + R) ** -0.5, "f64");
    });
    tape.seed(o, device.from(golden("d_out").values, o.shape, "f64"));
    tape.backward();
    const bound = tolerances.f32.frobenius;
    expect(distance(await o.read(), golden("out").values).frobenius).toBeLessThan(bound);
    const gradients = [
      [q, joined([golden("d_q_nope"), golden("d_q_rope")])],
      [kv, joined([golden("d_k_nope"), golden("d_v")])],
      [kRope, golden("d_k_rope").values],
    ] as const;
    for (const [tensor, expected] of gradients) {
      expect(distance((await tape.gradOf(tensor)?.read())!, expected).frobenius).toBeLessThan(bound);
    }
  });

  test("gives a sequence the same bits alone and in a batch", async () => {
    const device = makeOracleDevice();
    const batch = sizes([3, 6, 2], 2, 4, 2, 3);
    const inputs = makeInputs(device, batch);
    const alone = sizes([6], 2, 4, 2, 3);
    const own = {
      q: inputs.q.rows(3, 9),
      kv: inputs.kv.rows(3, 9),
      kRope: inputs.kRope.rows(3, 9),
      seqOffsets: device.from([0, 6], [2], "i32"),
    };
    const together = await attend(inputs, batch).rows(3, 9).read();
    expect(await attend(own, alone).read()).toEqual(together);
  });

  test("lets no token see a later one or another sequence", async () => {
    const device = makeOracleDevice();
    const problem = sizes([4, 4], 1, 3, 2, 3);
    const inputs = makeInputs(device, problem);
    const before = await attend(inputs, problem).read();
    const kv = await inputs.kv.read();
    kv.fill(9, 2 * 6, 3 * 6); // token 2 of the first sequence
    inputs.kv.write(kv);
    const after = await attend(inputs, problem).read();
    const changed = Array.from({ length: 8 }, (_, t) =>
      [0, 1, 2].some((v) => before[t * 3 + v] !== after[t * 3 + v]),
    );
    expect(changed).toEqual([false, false, true, true, false, false, false, false]);
  });

  test("refuses operands that do not fit the heads, by name", () => {
    const device = makeOracleDevice();
    const problem = sizes([3], 2, 4, 2, 3);
    const inputs = makeInputs(device, problem);
    const wrong = (other: Partial<typeof inputs>) => () => attend({ ...inputs, ...other }, problem);
    expect(wrong({ q: inputs.kv })).toThrow(/attention: q is \[3, 14\], it must be \[3, 12\]/);
    expect(wrong({ kv: inputs.q })).toThrow(/attention: kv is \[3, 12\], it must be \[3, 14\]/);
    expect(wrong({ kRope: inputs.q })).toThrow(/attention: kRope is \[3, 12\], it must be \[3, 2\]/);
    expect(wrong({ q: inputs.kv })).toThrow(ShapeError);
    expect(wrong({ seqOffsets: device.from([0, 3], [2], "f64") })).toThrow(DtypeError);
  });

  test("refuses offsets that do not cover the tokens in order", async () => {
    for (const offsets of [
      [0, 2],
      [1, 3],
      [0, 2, 1, 3],
    ]) {
      const device = makeOracleDevice();
      const problem = sizes([3], 1, 2, 2, 2);
      const inputs = makeInputs(device, problem);
      const seqOffsets = device.from(offsets, [offsets.length], "i32");
      const read = attend({ ...inputs, seqOffsets }, problem).read();
      await expect(read).rejects.toThrow(BackendError);
      await expect(read).rejects.toThrow(`[${offsets.join(", ")}] does not rise from 0 to 3`);
    }
  });
});
