/** Recorded steps that are replayed against the plain way, op by op: the same bits, and no op enqueued twice. */
import { describe, expect, test } from "vitest";
import { generateIds } from "../../src/engine/index.ts";
import { NativeBackend, type Operand, type Param, PlanBackend, QueueDevice } from "../../src/tensor/index.ts";
import type { Kernel } from "../../src/tensor/kernel.ts";
import type { TrainConfig } from "../../src/train/config.ts";
import { evaluate } from "../../src/train/eval/evaluate.ts";
import { scheduleAt } from "../../src/train/schedule.ts";
import type { TrainSession } from "../../src/train/session.ts";
import { nativeIsMissing } from "../support/native.ts";
import { PlainDevice } from "../support/plainDevice.ts";
import { makeSession, randomRows, tinyTrainConfig, trainingState } from "../support/tinyTraining.ts";

const BYTES = 2 ** 26;

/** Counts the ops that JavaScript enqueues one by one. */
class CountingBackend extends NativeBackend {
  enqueued = 0;

  override enqueue(...command: Parameters<NativeBackend["enqueue"]>): void {
    this.enqueued++;
    super.enqueue(...command);
  }
}

async function write(session: TrainSession): Promise<number[]> {
  const { device, model, config, precision, rope } = session;
  const runner = { device, model, config: config.model, precision, rope };
  const ids: number[] = [];
  const options = { maxTokens: 9, temperature: 1, seed: 3 };
  for await (const id of generateIds(runner, [5, 6, 7], options)) ids.push(id);
  return ids;
}

/** Ten steps as a run takes them: a growing batch, a skipped step, evaluation and a text in between. */
async function train(device: QueueDevice, config: TrainConfig, afterStep: (step: number) => void = () => {}) {
  const session = makeSession(config, device);
  const told: unknown[] = [];
  for (let step = 0; step < 10; step++) {
    const scheduled = scheduleAt(config, { step, share: step / 10 });
    const count = step < 4 ? config.microBatchRows * config.gradientShards : config.batchRows;
    told.push(await session.runner.compute(randomRows(count, config, step), scheduled));
    if (step !== 6) session.runner.commit(scheduled);
    afterStep(step);
    if (step === 2 || step === 7) {
      const set = { rows: randomRows(3, config, 50), bytesOf: () => 1 };
      told.push(await evaluate(session, set, { maxRows: 3 }), await write(session));
    }
  }
  const state = await trainingState(session);
  session.dispose();
  expect(device.arena.liveBytes).toBe(0);
  return { told, state };
}

const { optimizer, data } = tinyTrainConfig();
const cases: readonly [string, Partial<TrainConfig>][] = [
  ["f32", {}],
  [
    "bf16, averages, moments in bf16",
    { precision: "bf16", optimizer: { ...optimizer, emaDecay: 0.9, moments: "bf16" } },
  ],
  ["Muon", { precision: "bf16", optimizer: { ...optimizer, kind: "muon" } }],
  ["masked documents", { data: { ...data, maskDocuments: true } }],
  ["a tree of two blocks", { microBatchRows: 1, gradientShards: 2 }],
  ["one micro-batch a step", { microBatchRows: 4 }],
  ["with recomputation", { precision: "bf16", recompute: "selective" }],
  ["FP8", { precision: "fp8", optimizer: { ...optimizer, moments: "bf16" } }],
  ["FP8 and Muon", { precision: "fp8", optimizer: { ...optimizer, kind: "muon" }, recompute: "selective" }],
];

describe.skipIf(nativeIsMissing)("steps that are replayed", () => {
  test.each(cases)("have the bits of steps that are built op by op: %s", async (_, changes) => {
    const config = tinyTrainConfig(changes);
    const backend = (): NativeBackend => new NativeBackend({ threads: 2, reserveBytes: BYTES });
    const [replaying, plain] = [new QueueDevice(backend(), BYTES), new PlainDevice(backend(), BYTES)];
    const [replayed, built] = [await train(replaying, config), await train(plain, config)];
    expect(replayed.told).toEqual(built.told);
    expect(replayed.state).toEqual(built.state);
    expect(replaying.arena.highWaterBytes).toBe(plain.arena.highWaterBytes);
    await Promise.all([replaying.dispose(), plain.dispose()]);
  });

  test.each<[string, Partial<TrainConfig>]>([
    ["one block", {}],
    ["a tree of four blocks", { microBatchRows: 1, gradientShards: 4 }],
  ])("enqueue nothing op by op after the first, whatever is done in between: %s", async (_, changes) => {
    const backend = new CountingBackend({ threads: 2, reserveBytes: BYTES });
    const device = new QueueDevice(backend, BYTES);
    const counts: number[] = [];
    await train(device, tinyTrainConfig(changes), () => {
      counts.push(backend.enqueued);
      backend.enqueued = 0;
    });
    const [first, ...later] = counts;
    expect(first).toBeGreaterThan(200);
    // After steps 2 and 7 come an evaluation and a text, whose passes are their own.
    expect(later.filter((_, i) => i !== 2 && i !== 7)).toEqual([0, 0, 0, 0, 0, 0, 0]);
    await device.dispose();
  });

  test("enqueue one op after another for a prompt and for one token, and none for the others", async () => {
    const backend = new CountingBackend({ threads: 2, reserveBytes: BYTES });
    const device = new QueueDevice(backend, BYTES);
    const { model, config, precision, rope } = makeSession(tinyTrainConfig(), device);
    const runner = { device, model, config: config.model, precision, rope };
    backend.enqueued = 0;
    const counts: number[] = [];
    for await (const _ of generateIds(runner, [5, 6, 7], { maxTokens: 12 })) {
      counts.push(backend.enqueued);
      backend.enqueued = 0;
    }
    expect(counts[0]).toBeGreaterThan(20);
    expect(counts[1]).toBeGreaterThan(20);
    expect(counts.slice(2)).toEqual(new Array(10).fill(0));
    await device.dispose();
  });
});

/** Notes down each command without what a replay sets anew. */
class NotingBackend extends PlanBackend {
  readonly noted: string[] = [];

  override enqueue(kernel: Kernel, operands: readonly (Operand | null)[], params: readonly Param[]): void {
    super.enqueue(kernel, operands, params);
    const places = operands.map((operand) => operand && [operand.base, operand.offset, operand.dtype]);
    const fixed = params.map((param, i) => (typeof param === "number" ? param : kernel.params[i]));
    this.noted.push(JSON.stringify([kernel.name, places, fixed]));
  }
}

describe("any two steps", () => {
  test.each(cases.filter(([, { gradientShards = 1 }]) => gradientShards === 1))(
    "enqueue the same commands on the same addresses; they differ in host scalars only: %s",
    async (_, changes) => {
      const config = tinyTrainConfig({ ...changes, balance: { gamma: 0.1, gammaUntil: 0.5, alpha: 0.01 } });
      const backend = new NotingBackend();
      const session = makeSession(config, new QueueDevice(backend, BYTES));
      const steps: string[][] = [];
      // The very first step clears gradients that no update has used up yet.
      for (const [step, share] of [
        [0, 0],
        [1, 0.05],
        [9, 0.45],
        [19, 0.95],
      ] as const) {
        backend.noted.length = 0;
        const scheduled = scheduleAt(config, { step, share });
        await session.runner.compute(randomRows(config.batchRows, config, step), scheduled);
        session.runner.commit(scheduled);
        steps.push([...backend.noted]);
      }
      expect(steps[0]!.length).toBeGreaterThan(200);
      const cleared = session.factory.parameters.length + session.factory.tied.length;
      expect(steps[0]!.length - steps[1]!.length).toBe(cleared);
      expect(steps[2]).toEqual(steps[1]);
      expect(steps[3]).toEqual(steps[1]);
    },
  );
});
