import { describe, expect, test } from "vitest";
import { exampleEvents } from "../../../test/support/exampleEvents.ts";
import { syntheticRun } from "../../../test/support/syntheticRun.ts";
import {
  ConfigError,
  describeError,
  type EventOf,
  type RunEvent,
  type RunEventBody,
  stampEvent,
} from "../../base/index.ts";
import { narrate } from "./narration.ts";

const told = (event: RunEvent, columns = 80) => narrate(event, columns).map(({ text }) => text);
const say = (body: RunEventBody) => told(stampEvent(body)).join("\n");

describe("narrate", () => {
  const events = [...syntheticRun({ steps: 100 })];
  const first = <T extends RunEvent["type"]>(type: T) => events.find((event) => event.type === type)!;

  test("a start tells model, machine, memory, plan and every setting, folded to the width", () => {
    expect(told(first("run.started"), 70).join("\n")).toMatchInlineSnapshot(`
      "run         2026-11-21-nano-1, minke 0.1.0
      model       13.6M parameters, 6.5M per token, 40.9 MFLOP to train on a token
      machine     AMD EPYC 9R14, 2 of 2 threads, native avx512-bf16, bf16, peak 420 GFLOP/s
      memory      540 MiB expected; tensors 410 MiB: weights 78.2 MiB, gradients 51.5 MiB, moments 104 MiB, activations 176 MiB
      plan        100 steps, 205k tokens
      settings    seed=1 preset="nano" steps=100 model.hiddenSize=256
                  model.numHiddenLayers=6 model.nRoutedExperts=16
                  model.numExpertsPerTok=4 model.nGroup=4
                  model.vocabSize=4096 learningRate.peak=0.002
                  learningRate.warmupShare=0.03 learningRate.final=0.0002
                  data.source="sotu" data.fimRate=0.1
                  data.validationEvery=20"
    `);
  });

  test("a start in FP8 says what it saves against bf16", () => {
    const event = first("run.started") as EventOf<"run.started">;
    const besideBf16 = [{ name: "weights to multiply", bytes: 27e6, bf16Bytes: 50e6 }];
    const lines = told({ ...event, memory: { ...event.memory, besideBf16 } });
    expect(lines[4]).toBe("            weights to multiply 25.7 MiB, 0.54 of bf16");
    expect(lines.length).toBe(told(event).length + 1);
  });

  test("what happens is one line each", () => {
    const types = [
      "tokenizer.trained",
      "data.prepared",
      "evaluation.completed",
      "checkpoint.written",
      "run.phase",
    ] as const;
    const lines = [...types, "run.completed" as const].flatMap((type) => told(first(type)));
    expect(lines.join("\n")).toMatchInlineSnapshot(`
      "tokenizer   4,096 tokens, 4.10 bytes per token, 2.1s
      data        233 documents, 10.3 MiB, 2.62M tokens (2.49M to train, 132k to validate), 3.2s
      validation  step 50: loss 3.669, 1.291 bits per byte, next-next token 18.3% right
      checkpoint  checkpoints/step-100, 163 MiB, 200 ms
      phase       tokenizer took 2.1s
      done        100 steps, 205k tokens, 27.0s"
    `);
  });

  test("steps and biases move the progress line alone", () => {
    expect(told(first("step.completed"))).toEqual([]);
    expect(told(first("router.bias"))).toEqual([]);
  });

  test("a skipped step names the tensor and keeps quiet about a loss that is no number", () => {
    const skipped = { type: "step.skipped", step: 7, reason: "non-finite gradient" } as const;
    expect(say({ ...skipped, tensor: "model.layers.3.mlp.gate.weight", loss: null, gradNorm: null })).toBe(
      "skipped     step 7: non-finite gradient in model.layers.3.mlp.gate.weight",
    );
  });

  test("a warning says why, and what to do if anything", () => {
    const warning = { type: "run.warning", what: "2 cores are busy", why: "speed will vary" } as const;
    expect(say({ ...warning, fix: null }).split("\n")).toHaveLength(2);
    expect(say({ ...warning, fix: "close the browser" })).toContain("fix: close the browser");
  });

  test("an interruption says how to go on", () => {
    const text = say({
      type: "run.interrupted",
      step: 412,
      signal: "SIGINT",
      checkpoint: "checkpoints/step-412",
      resume: "minke train --run runs/a --resume",
    });
    expect(text).toBe(
      "interrupted by SIGINT after step 412, saved as checkpoints/step-412\n" +
        "go on with  minke train --run runs/a --resume",
    );
  });

  test("a failure is told with what, why and fix", () => {
    const error = describeError(
      new ConfigError("nGroup is 3", { why: "it must divide 16", fix: "set it to 4" }),
    );
    expect(say({ type: "run.failed", step: 0, error })).toBe(
      "failed      after step 0: ConfigError: nGroup is 3\n            why: it must divide 16\n            fix: set it to 4",
    );
  });

  test("damage to a checkpoint says what is used instead", () => {
    const damaged = {
      type: "checkpoint.damaged",
      step: 9,
      path: "checkpoints/step-9",
      reason: "bad hash",
    } as const;
    expect(say({ ...damaged, fallback: "checkpoints/step-6" })).toContain("using checkpoints/step-6 instead");
    expect(say({ ...damaged, fallback: null })).toContain("there is no other");
  });

  test("a run on ranks says which is what, and what the tensors of each will take", () => {
    for (const type of ["run.started", "run.resumed"] as const) {
      const event = exampleEvents[type];
      expect(say(event)).not.toContain("ranks ");
      const ranks = { layout: "dp=2,ep=1,pp=1", zero1: true, tensorBytes: [30 * 2 ** 20, 29 * 2 ** 20] };
      const environment = { ...event.environment, ranks };
      expect(say({ ...event, environment })).toContain(
        "ranks       2 (dp=2,ep=1,pp=1, ZeRO-1), tensors of each 30 MiB, 29 MiB",
      );
    }
  });

  test("a resume tells how many steps are done again", () => {
    const started = first("run.started");
    if (started.type !== "run.started") throw new Error("unexpected event");
    const { version, environment } = started;
    const config = { steps: 80 };
    const plan = {
      version,
      config,
      environment,
      step: 40,
      checkpoint: "c",
      plannedSteps: 80,
      plannedTokens: 1,
    };
    expect(say({ type: "run.resumed", ...plan, repeatedSteps: 7 })).toContain("7 steps after the checkpoint");
    expect(say({ type: "run.resumed", ...plan, repeatedSteps: 0 })).not.toContain("again");
  });

  test("a resume prints its settings in full: they may have changed since the run began", () => {
    const config = { optimizer: { learningRate: 0.5 } };
    const resumed = { ...exampleEvents["run.resumed"], config };
    expect(say(resumed)).toContain("settings    optimizer.learningRate=0.5");
  });

  test("what the model wrote cannot command the terminal", () => {
    const text = say({
      type: "sample.generated",
      step: 1,
      prompt: "a",
      text: "b\x1b[2Jc\r\nd\x07\u009b31m 鲸",
    });
    expect(text).toBe("sample 1    a|b\ufffd[2Jc\n            d\ufffd\ufffd31m 鲸");
  });
});
