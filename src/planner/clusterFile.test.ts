import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ConfigError } from "../base/index.ts";
import { hopperEfficiency, numDevices } from "./cluster.ts";
import { parseCluster } from "./clusterFile.ts";

const laptops = {
  name: "two laptops",
  nodes: 2,
  devicesPerNode: 1,
  device: { memoryGiB: 16, bf16Tflops: 0.5, memoryGBps: 60 },
  intraNodeGBps: 60,
  interNodeGBps: 0.1,
};

describe("parseCluster", () => {
  test("turns the units of the keys into SI", () => {
    const cluster = parseCluster(laptops, "laptops.json");
    expect(numDevices(cluster)).toBe(2);
    expect(cluster.device).toEqual({
      name: "device",
      memoryBytes: 16 * 2 ** 30,
      bf16Flops: 0.5e12,
      fp8Flops: null,
      memoryBandwidth: 60e9,
      multiprocessors: 1,
      communicationMultiprocessors: 0,
    });
    expect(cluster.interNodeBandwidth).toBeCloseTo(1e8, 3);
    expect(cluster.interNodeLatency).toBeCloseTo(5e-6, 12);
    expect(cluster).toMatchObject({ pricePerDeviceHour: 0, chunkTimes: null });
  });

  test("efficiencies that are not given are the published ones, one by one", () => {
    expect(parseCluster(laptops, "x").efficiency).toEqual(hopperEfficiency);
    const changed = parseCluster({ ...laptops, efficiency: { matmul: 0.4 } }, "x");
    expect(changed.efficiency).toEqual({ ...hopperEfficiency, matmul: 0.4 });
  });

  test("reads measured chunk times", () => {
    const chunkTimes = {
      model: "nano",
      pp: 2,
      microBatchTokens: 256,
      rowLength: 256,
      forwardMs: 5,
      backwardMs: 11,
      weightMs: 4,
      overlappedMs: 16,
      optimizerMs: 2,
    };
    expect(parseCluster({ ...laptops, chunkTimes }, "x").chunkTimes).toEqual({
      model: "nano",
      pp: 2,
      microBatchTokens: 256,
      rowLength: 256,
      forward: 0.005,
      backward: 0.011,
      weight: 0.004,
      overlapped: 0.016,
      optimizer: 0.002,
    });
  });

  test("reads the cluster that docs/plan.md shows", () => {
    const page = readFileSync(join(import.meta.dirname, "../../docs/plan.md"), "utf8");
    const [, json = ""] = /```json\n([\s\S]*?)```/.exec(page) ?? [];
    const lab = parseCluster(JSON.parse(json), "docs/plan.md");
    expect(numDevices(lab)).toBe(32);
    expect(lab.efficiency).toEqual({ ...hopperEfficiency, matmul: 0.65 });
  });

  const broken: [string, unknown, RegExp][] = [
    ["an unknown key", { ...laptops, intraNodeGbps: 60 }, /intraNodeGbps[\s\S]*intraNodeGBps/],
    ["a missing key", { ...laptops, nodes: undefined }, /nodes/],
    ["no nodes", { ...laptops, nodes: 0 }, /nodes/],
    ["half a node", { ...laptops, nodes: 1.5 }, /nodes/],
    ["a text for a number", { ...laptops, interNodeGBps: "fast" }, /interNodeGBps/],
    ["an efficiency above one", { ...laptops, efficiency: { matmul: 1.2 } }, /matmul/],
    [
      "no multiprocessor left to compute",
      { ...laptops, device: { ...laptops.device, multiprocessors: 4, communicationMultiprocessors: 4 } },
      /communicationMultiprocessors[\s\S]*left to compute/,
    ],
    [
      "chunk times of a model that it does not know",
      { ...laptops, chunkTimes: { model: "mine" } },
      /chunkTimes/,
    ],
    ["a list", [], /x/],
    ["nothing", null, /x/],
  ];
  test.each(broken)("refuses %s and names it", (_, json, says) => {
    expect(() => parseCluster(json, "x")).toThrow(ConfigError);
    expect(() => parseCluster(json, "x")).toThrow(says);
  });
});
