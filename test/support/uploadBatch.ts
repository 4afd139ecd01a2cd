/** A batch whose tensors belong to the scope around it: for passes that run once. */
import type { Device, Tensor } from "../../src/tensor/index.ts";
import type { BatchPlan, BatchTensors } from "../../src/train/batch.ts";

export function uploadBatch(device: Device, plan: BatchPlan): BatchTensors {
  const upload = (values: Int32Array): Tensor => device.from(values, [values.length], "i32");
  return {
    ids: upload(plan.ids),
    positions: upload(plan.positions),
    targets: upload(plan.targets),
    seqOffsets: upload(plan.seqOffsets),
    mtp: plan.mtp.map((module) => ({ ids: upload(module.ids), targets: upload(module.targets) })),
  };
}
