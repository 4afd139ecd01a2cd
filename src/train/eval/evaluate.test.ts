import { describe, expect, test } from "vitest";
import { snapshot } from "../../../test/support/tinyModel.ts";
import {
  EOS_ID,
  makeSession,
  midway,
  randomRows,
  tinyTrainConfig,
} from "../../../test/support/tinyTraining.ts";
import type { TrainConfig } from "../config.ts";
import type { TrainSession } from "../session.ts";
import { type Evaluation, type EvaluationSet, evaluate } from "./evaluate.ts";

function heldOut(config: TrainConfig, count = 5): EvaluationSet {
  return { rows: randomRows(count, config, 8), bytesOf: (id) => id % 4 };
}

async function evaluated(session: TrainSession, set: EvaluationSet, maxRows: number): Promise<Evaluation> {
  const result = await evaluate(session, set, { maxRows });
  if (result === null) throw new Error("nobody gave a signal");
  return result;
}

describe("evaluate", () => {
  test("gives the mean loss that a training step finds on the same rows", async () => {
    const config = tinyTrainConfig({ batchRows: 5, microBatchRows: 1 });
    const session = makeSession(config);
    const set = heldOut(config);
    const { mainLoss, targets, mtpAccuracy } = await session.runner.compute(set.rows, midway(config));
    const result = await evaluated(session, set, 100);
    expect(result.loss / mainLoss).toBeCloseTo(1, 6);
    expect(result.targets).toBe(targets);
    expect(result.nextNextTokenAccuracy).toBeCloseTo(mtpAccuracy[0]!, 12);
  });

  test("gives the same whatever the number of rows in a micro-batch, a broken last one included", async () => {
    const of = async (
      microBatchRows: number,
    ): Promise<{ loss: number; nextNextTokenAccuracy: number | null }> => {
      const config = tinyTrainConfig({ microBatchRows });
      return evaluated(makeSession(config), heldOut(config), 5);
    };
    const [one, two, four] = [await of(1), await of(2), await of(4)];
    expect(two.loss / one.loss).toBeCloseTo(1, 6);
    expect(four.loss / one.loss).toBeCloseTo(1, 6);
    expect([two.nextNextTokenAccuracy, four.nextNextTokenAccuracy]).toEqual(
      new Array<number | null>(2).fill(one.nextNextTokenAccuracy),
    );
  });

  test("says bits per byte: nats of all targets over ln 2 and the bytes that the targets stand for", async () => {
    const config = tinyTrainConfig();
    const set = heldOut(config);
    const { loss, targets, bitsPerByte } = await evaluated(makeSession(config), set, 3);
    let bytes = 0;
    for (const [i, id] of set.rows.tokens.subarray(0, 27).entries())
      if (i % 9 !== 0 && id >= 0) bytes += id % 4;
    expect(bitsPerByte).toBeCloseTo((loss * targets) / Math.LN2 / bytes, 10);
  });

  test("counts no bytes of what is not predicted: the first token behind a masked document's end", async () => {
    const { data } = tinyTrainConfig();
    const config = tinyTrainConfig({ data: { ...data, maskDocuments: true } });
    const tokens = Int32Array.from([EOS_ID, 10, 11, EOS_ID, 20, 21, 22, EOS_ID, 30]);
    const asked: number[] = [];
    const bytesOf = (id: number): number => asked.push(id);
    await evaluated(makeSession(config), { rows: { tokens, count: 1, rowLength: 8 }, bytesOf }, 1);
    expect(asked).toEqual([11, EOS_ID, 21, 22, EOS_ID]);
  });

  test("looks at the first rows only where it is told how many", async () => {
    const config = tinyTrainConfig();
    const session = makeSession(config);
    const set = heldOut(config);
    const first = { ...set, rows: { ...set.rows, tokens: set.rows.tokens.subarray(0, 18), count: 2 } };
    expect(await evaluated(session, set, 2)).toEqual(await evaluated(session, first, 100));
  });

  test("has no hit rate where there is no MTP module", async () => {
    const config = tinyTrainConfig({}, { numNextnPredictLayers: 0 });
    expect((await evaluated(makeSession(config), heldOut(config), 5)).nextNextTokenAccuracy).toBeNull();
  });

  test("leaves weights, gradients and memory as they were", async () => {
    const config = tinyTrainConfig();
    const session = makeSession(config);
    await session.runner.compute(randomRows(4, config, 1), midway(config));
    const weights = await snapshot(session.factory);
    const grads = await Promise.all(session.factory.parameters.map(({ grad }) => grad!.readBytes()));
    const { liveBytes, liveCount } = session.device.arena;
    await evaluated(session, heldOut(config), 5);
    expect(await snapshot(session.factory)).toEqual(weights);
    expect(await Promise.all(session.factory.parameters.map(({ grad }) => grad!.readBytes()))).toEqual(grads);
    expect([session.device.arena.liveBytes, session.device.arena.liveCount]).toEqual([liveBytes, liveCount]);
  });

  test("finds a model better on rows that it has learnt", async () => {
    const config = tinyTrainConfig();
    const session = makeSession(config);
    const set: EvaluationSet = { rows: randomRows(4, config, 5), bytesOf: () => 2 };
    const before = await evaluated(session, set, 4);
    for (let i = 0; i < 8; i++) {
      await session.runner.compute(set.rows, midway(config));
      session.runner.commit(midway(config));
    }
    const after = await evaluated(session, set, 4);
    expect(after.loss).toBeLessThan(before.loss - 0.3);
    expect(after.bitsPerByte).toBeLessThan(before.bitsPerByte);
  });

  test("is given up at the first micro-batch after the signal, without figures", async () => {
    const config = tinyTrainConfig({ batchRows: 2, microBatchRows: 1 });
    const session = makeSession(config);
    const set = heldOut(config, 500);
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 20);
    const started = performance.now();
    expect(await evaluate(session, set, { maxRows: 500, signal: controller.signal })).toBeNull();
    const whole = performance.now();
    await evaluated(session, set, 500);
    expect(whole - started).toBeLessThan((performance.now() - whole) / 2);
  });
});
