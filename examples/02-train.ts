// Trains a small model on a folder of text and follows it event by event.
// Run it in a clone: node examples/02-train.ts [PATH] [STEPS]
import { trainModel } from "minke";

const [path = "docs", steps = "20"] = process.argv.slice(2);

const controller = new AbortController();
process.once("SIGINT", () => controller.abort("SIGINT")); // stops after the step, with a checkpoint

const run = trainModel({
  preset: "unit",
  data: [path],
  steps: Number(steps),
  set: ["data.tokenizer=bytes", "batchRows=8", "microBatchRows=8", 'sample.prompts=["The "]'],
  signal: controller.signal,
});

for await (const event of run) {
  if (event.type === "step.completed") console.log(`step ${event.step}: loss ${event.loss.toFixed(3)}`);
  if (event.type === "evaluation.completed") console.log(`held out: ${event.bitsPerByte} bits per byte`);
  if (event.type === "sample.generated") console.log(`sample: ${event.prompt}|${event.text}`);
}

const { path: folder } = await run.finished;
console.log(`node examples/03-generate.ts ${folder}`);
