import { describe, expect, test } from "vitest";
import { exampleEvents } from "../../../test/support/exampleEvents.ts";
import type { RunEvent } from "../../base/index.ts";
import { collectHistory } from "../log/history.ts";
import { type Fact, reportData } from "./reportData.ts";

const example = exampleEvents;
const dataOf = async (...events: RunEvent[]) =>
  reportData(await collectHistory([example["run.started"], ...events]));
const shown = (facts: readonly Fact[]) => Object.fromEntries(facts.map(({ name, value }) => [name, value]));

describe("reportData", () => {
  test("heads with the figures by which runs are compared", async () => {
    const { headline } = await dataOf(example["step.completed"], example["evaluation.completed"]);
    expect(shown(headline)).toEqual({
      "validation bits per byte": "2.943",
      "validation loss": "5.100",
      "next-next token": "5.0%",
      parameters: "1M",
      steps: "5 of 10",
      "tokens seen": "320",
      speed: "1,000 tok/s",
      "share of peak": "50.0%",
    });
  });

  test("says with a dash what was not measured", async () => {
    const { headline } = await dataOf();
    expect(shown(headline)).toMatchObject({ "validation loss": "–", speed: "–", "share of peak": "–" });
  });

  test("tells model, data, machine and settings as the events have them", async () => {
    const { facts } = await dataOf(example["data.prepared"], example["tokenizer.trained"]);
    expect(shown(facts.model)).toMatchObject({ "MTP modules": "1", "training work per token": "2.4 MFLOP" });
    expect(shown(facts.data)).toEqual({
      source: "text.txt",
      "training split": "19 documents, 37.1 KiB, 9,500 tokens",
      "validation split": "1 documents, 1.95 KiB, 500 tokens",
      vocabulary: "512",
      "bytes per token": "2.50",
    });
    expect(shown(facts.machine)).toMatchObject({
      command: "minke train --preset unit",
      backend: "native, avx512-bf16",
      peak: "420 GFLOP/s",
    });
    expect(facts.settings).toEqual([
      { name: "seed", value: "1" },
      { name: "model.nRoutedExperts", value: "4" },
    ]);
  });

  test("puts measured memory beside the estimate", async () => {
    const step = example["step.completed"];
    const { facts } = await dataOf(step, { ...step, step: 6, liveBytes: 24e6, rssBytes: 70e6 });
    expect(shown(facts.memory)).toMatchObject({
      "tensors, expected": "28.6 MiB",
      "tensors, measured at most": "22.9 MiB",
      "process, measured at most": "76.3 MiB",
    });
    expect(shown((await dataOf()).facts.memory)).not.toHaveProperty("tensors, measured at most");
  });

  test("puts what FP8 saves beside bf16", async () => {
    const started = example["run.started"];
    const besideBf16 = [{ name: "cached activations", bytes: 3 * 2 ** 20, bf16Bytes: 5 * 2 ** 20 }];
    const event = { ...started, memory: { ...started.memory, besideBf16 } };
    const { facts } = reportData(await collectHistory([event]));
    expect(shown(facts.memory)).toMatchObject({ "cached activations, expected": "3 MiB, 0.60 of bf16" });
  });

  test("counts only the validation split as evaluation", async () => {
    const training = { ...example["evaluation.completed"], split: "train" as const };
    expect((await dataOf(training)).evaluations).toEqual([]);
  });

  test("leaves the model out of the baselines while it has not been evaluated", async () => {
    const { baselines } = await dataOf(example["baselines.measured"]);
    expect(baselines.map(({ name }) => name)).toEqual(["order-2 byte model"]);
    const evaluated = await dataOf(example["baselines.measured"], example["evaluation.completed"]);
    expect(evaluated.baselines.map(({ name }) => name)).toEqual(["order-2 byte model", "this model"]);
  });

  test("notes every kind of incident, by time", async () => {
    const kinds = [
      "run.warning",
      "step.skipped",
      "checkpoint.damaged",
      "run.interrupted",
      "run.resumed",
      "run.failed",
      "run.completed",
    ] as const;
    const timed = kinds.map((kind, minute) => ({
      ...example[kind],
      time: `2026-11-21T13:0${minute}:00.000Z`,
    }));
    const { incidents } = await dataOf(...timed.toReversed());
    expect(incidents).toEqual([
      { step: null, text: "Warning: the machine is busy (speeds will vary)" },
      { step: 6, text: "Skipped: non-finite gradient in model.layers.1.mlp.gate.weight" },
      { step: 5, text: "Damaged checkpoint checkpoints/step-5: model.safetensors has another hash" },
      { step: 5, text: "Interrupted by SIGINT" },
      { step: 4, text: "Resumed from checkpoints/step-4" },
      { step: 5, text: "Failed: model.norm.weight is not finite" },
      { step: 10, text: "Completed after 2.0s" },
    ]);
  });
});
