import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { scratchFolder } from "../../../test/support/scratchFolder.ts";
import { BaseError, UsageError } from "../../base/index.ts";
import { modelConfigToJson, presetConfig } from "../../model/index.ts";
import { namedCluster } from "../../planner/index.ts";
import { type PlanFlags, parseLayout, readCluster, readLoads, readModel, stepSize } from "./inputs.ts";

const flags: PlanFlags = { model: "v3-671b", cluster: "h800x2048", batchRows: 15_360, tokens: "14.8T" };

async function fileWith(name: string, content: unknown): Promise<string> {
  const path = join(await scratchFolder(), name);
  await writeFile(path, typeof content === "string" ? content : JSON.stringify(content));
  return path;
}

describe("parseLayout", () => {
  test("fixes what is named and leaves the rest open", () => {
    expect(parseLayout("pp=16,ep=64", undefined)).toEqual({ pp: [16], ep: [64] });
    expect(parseLayout(" pp = 4 , rows=2 ", "zb")).toEqual({
      pp: [4],
      microBatchRows: [2],
      schedule: ["zb"],
    });
    expect(parseLayout(undefined, undefined)).toEqual({});
  });

  test.each([
    ["tp=8", /"tp" is no part of a layout[\s\S]*did you mean pp/],
    ["pp", /"pp" gives pp no whole number/],
    ["pp=0", /"pp=0" gives pp no whole number/],
    ["pp=1.5", /"pp=1.5"/],
    ["pp=4=4", /"pp=4=4"/],
    ["pp=4,pp=8", /pp is given twice/],
    ["constructor=1", /"constructor" is no part of a layout/],
    ["", /--layout names nothing/],
    [" ", /--layout names nothing/],
  ])("refuses %j", (text, says) => {
    expect(() => parseLayout(text, undefined)).toThrow(UsageError);
    expect(() => parseLayout(text, undefined)).toThrow(says);
  });
});

describe("readModel", () => {
  test("takes presets, a config.json, and a folder with one", async () => {
    const path = await fileWith("config.json", modelConfigToJson(presetConfig("micro")));
    expect((await readModel("micro")).hiddenSize).toBe(128);
    expect((await readModel(path)).hiddenSize).toBe(128);
    expect((await readModel(join(path, ".."))).hiddenSize).toBe(128);
  });

  test("suggests the nearest preset", async () => {
    await expect(readModel("v3-617b")).rejects.toThrow(/fix: use --model v3-671b/);
  });

  test("says which file is missing, or is no JSON", async () => {
    await expect(readModel("nowhere/config.json")).rejects.toThrow(BaseError);
    await expect(readModel("nowhere/config.json")).rejects.toThrow(/nowhere/);
    await expect(readModel(await fileWith("config.json", "{,"))).rejects.toThrow(/is not JSON/);
  });
});

describe("readCluster", () => {
  test("takes names and files", async () => {
    const path = await fileWith("lab.json", {
      name: "lab",
      nodes: 2,
      devicesPerNode: 4,
      device: { memoryGiB: 24, bf16Tflops: 100, memoryGBps: 900 },
      intraNodeGBps: 30,
      interNodeGBps: 10,
    });
    expect((await readCluster(path)).name).toBe("lab");
    expect((await readCluster("h100x16")).nodes).toBe(2);
    await expect(readCluster("lab")).rejects.toThrow(/there is no cluster "lab"/);
  });
});

describe("readLoads", () => {
  test("reads a list of layers", async () => {
    expect(
      await readLoads(
        await fileWith("loads.json", [
          [1, 2],
          [3, 4],
        ]),
      ),
    ).toEqual([
      [1, 2],
      [3, 4],
    ]);
  });

  test("adds up the steps of a run's events", async () => {
    const step = (first: number): string =>
      JSON.stringify({
        type: "step.completed",
        expertLoad: [
          { layer: 2, counts: [first, 1] },
          { layer: 1, counts: [0, 10] },
        ],
      });
    const whole = `{"type":"run.started"}\n${step(5)}\n${step(7)}\n`;
    // A run that is writing has a line without an end.
    for (const text of [whole, `${whole}${step(9).slice(0, 60)}`]) {
      expect(await readLoads(await fileWith("events.jsonl", text))).toEqual([
        [0, 20],
        [12, 2],
      ]);
    }
  });

  test.each([[[]], [[[]]], [[["a"]]], [[[-1, 2]]], [{}], [null], [[1, 2]]])(
    "%j holds no loads",
    async (content) => {
      const path = await fileWith("loads.json", content);
      await expect(readLoads(path)).rejects.toThrow(/holds no loads of experts/);
    },
  );
});

describe("stepSize", () => {
  const cluster = namedCluster("h800x8");

  test("rows are 4,096 tokens, or the model's context where that is shorter", () => {
    expect(stepSize(flags, presetConfig("v3-671b"), cluster).rowLength).toBe(4096);
    expect(stepSize(flags, presetConfig("nano"), cluster).rowLength).toBe(256);
    expect(stepSize({ ...flags, rowLength: 128 }, presetConfig("nano"), cluster).rowLength).toBe(128);
  });

  test("is FP8 where the device has it", () => {
    const old = { ...cluster, device: { ...cluster.device, fp8Flops: null } };
    expect(stepSize(flags, presetConfig("nano"), cluster).precision).toBe("fp8");
    expect(stepSize(flags, presetConfig("nano"), old).precision).toBe("bf16");
    expect(stepSize({ ...flags, precision: "bf16" }, presetConfig("nano"), cluster).precision).toBe("bf16");
  });
});
