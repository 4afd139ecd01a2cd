/** Steps that break off, are skipped, or are taken beside those of another session: what follows has the same bits. */
import { describe, expect, test } from "vitest";
import { type Backend, fill, NativeBackend, QueueDevice, ReferenceBackend } from "../../src/tensor/index.ts";
import type { TrainConfig } from "../../src/train/config.ts";
import { evaluate } from "../../src/train/eval/evaluate.ts";
import { scheduleAt } from "../../src/train/schedule.ts";
import type { TrainSession } from "../../src/train/session.ts";
import { FailingDevice } from "../support/failingDevice.ts";
import { nativeIsMissing } from "../support/native.ts";
import { makeRandom } from "../support/random.ts";
import { makeSession, midway, randomRows, tinyTrainConfig, trainingState } from "../support/tinyTraining.ts";

const BYTES = 2 ** 26;
const backend = (): Backend =>
  nativeIsMissing ? new ReferenceBackend() : new NativeBackend({ threads: 2, reserveBytes: BYTES });

const { optimizer, data } = tinyTrainConfig();
const cases: readonly [string, Partial<TrainConfig>][] = [
  ["plain", {}],
  ["with recomputation", { precision: "bf16", recompute: "selective" }],
  ["with a tree of blocks", { microBatchRows: 1, gradientShards: 4 }],
  [
    "under Muon, with averages",
    { precision: "bf16", optimizer: { ...optimizer, kind: "muon", emaDecay: 0.9 } },
  ],
  ["with masked documents", { data: { ...data, maskDocuments: true } }],
];

describe("a step that breaks off", () => {
  /** Commands from one broken step to the next one's breaking point. */
  const STRIDE = nativeIsMissing ? 61 : 7;

  test.each(cases)(
    "gives its memory back; the step tried again has the bits of one: %s",
    async (_, changes) => {
      const config = tinyTrainConfig(changes);
      const device = new FailingDevice(backend(), BYTES);
      const session = makeSession(config, device);
      const used = (): number[] => [device.arena.liveBytes, device.arena.liveCount];
      const rows = randomRows(config.batchRows, config, 1);
      const before = device.enqueued;
      const wanted = await session.runner.compute(rows, midway(config));
      const commands = device.enqueued - before;
      expect(commands).toBeGreaterThan(200);
      for (let at = 0; at < commands; at += STRIDE) {
        // A guest of another size each time, where the recordings have their memory: all of them are built anew.
        using _guest = device.temporary([16 * (1 + at)], "f32");
        const standing = used();
        device.left = at;
        await expect(session.runner.compute(rows, midway(config))).rejects.toThrow(/no room/);
        device.left = Number.POSITIVE_INFINITY;
        expect(used(), `broken off at command ${at}`).toEqual(standing);
      }
      expect(await session.runner.compute(rows, midway(config))).toEqual(wanted);
      await device.dispose();
    },
  );
});

/** Before every step sets all gradients to zero by hand, whatever the runner believes of them. */
function clearGradients({ factory }: TrainSession): void {
  const aliases = factory.tied.map(({ alias }) => alias);
  for (const { grad } of [...factory.parameters, ...aliases]) fill(grad!, 0);
}

describe("gradients that the update has used up", () => {
  test.each(cases)(
    "are zero for the next step, in whatever order steps are taken, skipped, spoilt and evaluated: %s",
    async (_, changes) => {
      const config = tinyTrainConfig(changes);
      const devices = [new QueueDevice(backend(), BYTES), new QueueDevice(backend(), BYTES)];
      const [trusting, clearing] = devices.map((device) => makeSession(config, device));
      const random = makeRandom(17);
      for (let step = 0; step < 16; step++) {
        const kind = random();
        const scheduled = scheduleAt(config, { step, share: step / 16 });
        const blocks = config.gradientShards * config.microBatchRows;
        const count = random() < 0.5 ? blocks : Math.max(blocks, config.batchRows);
        const records = [trusting!, clearing!].map((session) => {
          if (session === clearing) clearGradients(session);
          // A step whose gradients are not numbers is never taken.
          const mtpWeight = kind < 0.2 ? Number.NaN : scheduled.mtpWeight;
          return session.runner.compute(randomRows(count, config, step), { ...scheduled, mtpWeight });
        });
        const [ours, theirs] = await Promise.all(records);
        expect(ours, `step ${step}`).toEqual(theirs);
        if (kind < 0.2) expect(ours!.gradNorm).toBeNaN();
        for (const session of [trusting!, clearing!]) if (kind > 0.4) session.runner.commit(scheduled);
        if (kind > 0.8) {
          const set = { rows: randomRows(3, config, 50), bytesOf: () => 1 };
          await evaluate(trusting!, set, { maxRows: 3 });
        }
      }
      expect(trusting!.optimizer.updates).toBeGreaterThan(4);
      expect(trusting!.optimizer.updates).toBeLessThan(14);
      expect(await trainingState(trusting!)).toEqual(await trainingState(clearing!));
      for (const device of devices) await device.dispose();
    },
  );
});

describe("two sessions on one device", () => {
  test("that take turns have the bits of each alone", async () => {
    const configs = [
      tinyTrainConfig({ recompute: "selective" }),
      tinyTrainConfig(
        { seed: 3, microBatchRows: 1, optimizer: { ...optimizer, kind: "muon" } },
        { qLoraRank: null },
      ),
    ];
    const step = async (session: TrainSession, i: number): Promise<void> => {
      const { config, runner } = session;
      await runner.compute(randomRows(config.batchRows, config, i), midway(config));
      runner.commit(midway(config));
    };
    const shared = new QueueDevice(backend(), BYTES);
    const together = configs.map((config) => makeSession(config, shared));
    for (let i = 0; i < 4; i++) await Promise.all(together.map((session) => step(session, i)));
    for (const [s, config] of configs.entries()) {
      const device = new QueueDevice(backend(), BYTES);
      const alone = makeSession(config, device);
      for (let i = 0; i < 4; i++) await step(alone, i);
      expect(await trainingState(together[s]!)).toEqual(await trainingState(alone));
      await device.dispose();
    }
    await shared.dispose();
  });
});
