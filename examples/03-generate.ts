// Lets a trained model write: from a run's folder or from a checkpoint.
// Run it in a clone: node examples/03-generate.ts RUN [PROMPT]
import { BaseError, loadModel } from "minke";

const [folder, prompt = "The "] = process.argv.slice(2);
if (folder === undefined) throw new Error("name a run's folder; examples/02-train.ts makes one");

try {
  const model = await loadModel(folder);
  process.stdout.write(prompt);
  for await (const text of model.generate(prompt, { maxTokens: 32, temperature: 0.8, seed: 1 })) {
    process.stdout.write(text);
  }
  process.stdout.write("\n");
  await model.dispose();
} catch (error) {
  // Every error says what happened, why, and what to do next.
  if (!BaseError.isInstance(error)) throw error;
  console.error(`${error.what}\n  why: ${error.why}\n  fix: ${error.fix}`);
  process.exitCode = 1;
}
