/** Trains a tiny model for a few steps on a device and, in plain TypeScript, on the reference backend: both must agree. */
import { presetConfig } from "../model/index.ts";
import { QueueDevice, ReferenceBackend } from "../tensor/index.ts";
import { defaultTrainConfig, scheduleAt, type TrainConfig, TrainSession } from "../train/index.ts";

/** Steps are few and sums short: the two differ by rounding only, in FP8 by a code's neighbour here and there. */
const TOLERANCE = { f32: 2e-3, fp8: 2e-2 } as const;
const STEPS = 3;

export async function selfTest(
  device: QueueDevice,
): Promise<{ readonly isGood: boolean; readonly text: string }> {
  const found = { f32: await compare(device, "f32"), fp8: await compare(device, "fp8") };
  const told = (values: readonly number[]): string => values.map((loss) => loss.toFixed(4)).join(", ");
  const apart = (precision: keyof typeof TOLERANCE): string => found[precision].apart.toExponential(1);
  return {
    isGood: found.f32.isGood && found.fp8.isGood,
    text: `${STEPS} training steps: losses ${told(found.f32.losses)}; ${apart("f32")} from the reference; in FP8 ${told(found.fp8.losses)}; ${apart("fp8")}`,
  };
}

async function compare(
  device: QueueDevice,
  precision: keyof typeof TOLERANCE,
): Promise<{ readonly isGood: boolean; readonly losses: readonly number[]; readonly apart: number }> {
  const model = { ...presetConfig("unit"), vocabSize: 64 };
  const base = defaultTrainConfig("unit", STEPS, model, precision);
  const config: TrainConfig = { ...base, batchRows: 2, microBatchRows: 2 };
  const reference = new QueueDevice(new ReferenceBackend(), 2 ** 31);
  const [ours, theirs] = [await losses(device, config), await losses(reference, config)];
  await reference.dispose();
  const apart = Math.max(...ours.map((loss, i) => Math.abs(loss / theirs[i]! - 1)));
  return { isGood: apart < TOLERANCE[precision] && ours.at(-1)! < ours[0]!, losses: ours, apart };
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
