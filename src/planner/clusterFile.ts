/** A cluster that a user describes in a JSON file: units in the keys, every key checked, nothing ignored. */
import { z } from "zod";
import { parseConfig } from "../base/index.ts";
import { presets } from "../model/index.ts";
import { type Cluster, hopperEfficiency } from "./cluster.ts";

const positive = z.number().positive();
const share = z.number().positive().max(1);
const count = z.number().int().positive();

const deviceSchema = z
  .strictObject({
    name: z.string().min(1).default("device"),
    memoryGiB: positive,
    bf16Tflops: positive,
    fp8Tflops: positive.nullable().default(null),
    memoryGBps: positive,
    multiprocessors: count.default(1),
    communicationMultiprocessors: z.number().int().min(0).default(0),
  })
  .refine((device) => device.communicationMultiprocessors < device.multiprocessors, {
    path: ["communicationMultiprocessors"],
    error: "some multiprocessors must be left to compute",
    params: { fix: "give fewer of them to communication, or 0 where a network card does the work" },
  });

const chunkTimesSchema = z
  .strictObject({
    model: z.string().refine((name) => Object.hasOwn(presets, name), {
      error: `chunks are scaled by a preset's FLOPs: ${Object.keys(presets).join(", ")}`,
      params: { fix: "name the preset that was measured" },
    }),
    pp: count,
    microBatchTokens: count,
    rowLength: count,
    forwardMs: positive,
    backwardMs: positive,
    weightMs: positive,
    overlappedMs: positive,
    optimizerMs: z.number().min(0),
  })
  .refine(({ weightMs, backwardMs }) => weightMs < backwardMs, {
    path: ["weightMs"],
    error: "the weights' part is a part of the full backward",
    params: { fix: "give backwardMs = input part + weights' part" },
  });

const clusterSchema = z.strictObject({
  name: z.string().min(1),
  nodes: count,
  devicesPerNode: count,
  device: deviceSchema,
  intraNodeGBps: positive,
  interNodeGBps: positive,
  interNodeLatencyUs: z.number().min(0).default(5),
  pricePerDeviceHour: z.number().min(0).default(0),
  efficiency: z
    .strictObject({
      matmul: share.default(hopperEfficiency.matmul),
      attentionForward: share.default(hopperEfficiency.attentionForward),
      attentionBackward: share.default(hopperEfficiency.attentionBackward),
      memory: share.default(hopperEfficiency.memory),
    })
    .default(hopperEfficiency),
  chunkTimes: chunkTimesSchema.nullable().default(null),
});

/**
 * @param json   what the file holds
 * @param where  its path, for messages
 * @throws       {ConfigError} naming the key that is unknown, missing or wrong
 */
export function parseCluster(json: unknown, where: string): Cluster {
  const { device, intraNodeGBps, interNodeGBps, interNodeLatencyUs, chunkTimes, ...rest } = parseConfig(
    clusterSchema,
    json,
    where,
  );
  const { memoryGiB, bf16Tflops, fp8Tflops, memoryGBps, ...others } = device;
  return Object.freeze({
    ...rest,
    origin: "file",
    device: {
      ...others,
      memoryBytes: memoryGiB * 1024 ** 3,
      bf16Flops: bf16Tflops * 1e12,
      fp8Flops: fp8Tflops === null ? null : fp8Tflops * 1e12,
      memoryBandwidth: memoryGBps * 1e9,
    },
    intraNodeBandwidth: intraNodeGBps * 1e9,
    interNodeBandwidth: interNodeGBps * 1e9,
    interNodeLatency: interNodeLatencyUs * 1e-6,
    chunkTimes:
      chunkTimes === null
        ? null
        : {
            model: chunkTimes.model,
            pp: chunkTimes.pp,
            microBatchTokens: chunkTimes.microBatchTokens,
            rowLength: chunkTimes.rowLength,
            forward: chunkTimes.forwardMs / 1000,
            backward: chunkTimes.backwardMs / 1000,
            weight: chunkTimes.weightMs / 1000,
            overlapped: chunkTimes.overlappedMs / 1000,
            optimizer: chunkTimes.optimizerMs / 1000,
          },
  });
}
