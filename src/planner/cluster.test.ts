import { describe, expect, test } from "vitest";
import { UsageError } from "../base/index.ts";
import { namedCluster, numDevices, shareComputing } from "./cluster.ts";

describe("namedCluster", () => {
  test("h800x2048 is the published cluster: 256 nodes of 8, BF16 peak 989 TFLOPS, one 400 Gb/s card a device", () => {
    const cluster = namedCluster("h800x2048");
    expect(cluster).toMatchObject({ nodes: 256, devicesPerNode: 8, interNodeBandwidth: 50e9 });
    expect(cluster.intraNodeBandwidth).toBe(160e9);
    expect(cluster.device).toMatchObject({ name: "H800", bf16Flops: 989e12, fp8Flops: 1979e12 });
    expect(numDevices(cluster)).toBe(2048);
  });

  test("20 of 132 multiprocessors communicate", () => {
    expect(shareComputing(namedCluster("h800x8").device)).toBeCloseTo(112 / 132, 12);
  });

  test("chunk times belong to the cluster on which they were measured", () => {
    expect(namedCluster("h800x64").chunkTimes).not.toBeNull();
    expect(namedCluster("h100x64").chunkTimes).toBeNull();
  });

  test("capitals do not matter, and less than a node is one node", () => {
    expect(namedCluster("H800x4")).toMatchObject({ name: "h800x4", nodes: 1, devicesPerNode: 4 });
  });

  test.each(["h900x8", "h800", "h800x0", "2048", "", "h800x-8", "constructorx8"])("%j is refused", (name) => {
    expect(() => namedCluster(name)).toThrow(UsageError);
  });

  test("devices that leave a node half empty are refused with the next full number", () => {
    expect(() => namedCluster("h800x100")).toThrowErrorMatchingInlineSnapshot(`
      [UsageError: h800x100: 100 devices do not fill nodes of 8
        why: every node of a named cluster has eight devices
        fix: use h800x104, or describe your own in a JSON file]
    `);
  });
});
