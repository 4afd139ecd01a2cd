/** Trains a tiny model for a few steps on a device and, in doubles, on the reference backend: both must agree. */
import { presetConfig } from "../model/index.ts";
import { QueueDevice, ReferenceBackend } from "../tensor/index.ts";
import { defaultTrainConfig, scheduleAt, type TrainConfig, TrainSession } from "../train/index.ts";

/** Steps are few and sums short: the two differ by rounding only. */
const TOLERANCE = 2e-3;
const STEPS = 3;

export async function selfTest(
  device: QueueDevice,
): Promise<{ readonly isGood: boolean; readonly text: string }> {
  const model = { ...presetConfig("unit"), vocabSize: 64 };
  const base = defaultTrainConfig("unit", STEPS, model);
  const config: TrainConfig = { ...base, precision: "f32", batchRows: 2, microBatchRows: 2 };
  const reference = new QueueDevice(new ReferenceBackend(), 2 ** 31);
  const [ours, theirs] = [await losses(device, config), await losses(reference, config)];
  await reference.dispose();
  const apart = Math.max(...ours.map((loss, i) => Math.abs(loss / theirs[i]! - 1)));
  const falls = ours.at(-1)! < ours[0]!;
  const text = `${STEPS} training steps: losses ${ours.map((loss) => loss.toFixed(4)).join(", ")}; ${apart.toExponential(1)} from the reference`;
  return { isGood: apart < TOLERANCE && falls, text };
}

async function losses(device: QueueDevice, config: TrainConfig): Promise<readonly number[]> {
  const session = new TrainSession(device, config, { padId: 0, eosId: 0 });
  session.initialize();
  const width = config.rowLength + 1;
  const tokens = Int32Array.from(
    { length: config.batchRows * width },
    (_, i) => (i * i + 3 * i) % config.model.vocabSize,
  );
  const result: number[] = [];
  for (let step = 0; step < STEPS; step++) {
    const scheduled = { ...scheduleAt(config, { step, share: 0 }), learningRate: 3e-3 };
    const record = await session.runner.compute(
      { tokens, count: config.batchRows, rowLength: config.rowLength },
      scheduled,
    );
    session.runner.commit(scheduled);
    result.push(record.loss);
  }
  session.dispose();
  return result;
}
