/** `minke convert`: the same model with its weights in another form. */
import { Command } from "commander";
import { formatBytes, formatDuration, parseBytes } from "../base/index.ts";
import {
  type Conversion,
  type ConvertProgress,
  convertCheckpoint,
  findCheckpoint,
  type WeightFormat,
  weightFormats,
} from "../checkpoint/index.ts";
import { interruptible } from "./interrupt.ts";
import { choiceOption } from "./options.ts";

interface Flags {
  readonly dtype: WeightFormat;
  readonly scales?: "plain" | "power-of-two";
  readonly shardSize?: number;
  readonly json?: boolean;
}

export function convertCommand(): Command {
  return new Command("convert")
    .description("write a model's weights in FP8, BF16 or F32")
    .argument("<checkpoint>", "run folder, checkpoint, or a folder in Hugging Face layout")
    .argument("<folder>", "where the converted model goes; it must not exist yet")
    .requiredOption(
      "--dtype <name>",
      "fp8 (E4M3 with a scale per block of 128 x 128, as DeepSeek-V3 was released), bf16 or f32",
      choiceOption("--dtype", weightFormats),
    )
    .option(
      "--scales <form>",
      "of FP8: plain, or power-of-two as DeepSeek-V3.1 has them; by default as the source",
      choiceOption("--scales", ["plain", "power-of-two"]),
    )
    .option("--shard-size <size>", "largest file, for example 5GB", parseBytes)
    .option("--json", "print one JSON object")
    .addHelpText(
      "after",
      "\nExamples:\n  minke convert runs/2026-11-21-nano-1 model-fp8/ --dtype fp8\n  minke convert DeepSeek-V3/ model-bf16/ --dtype bf16\n",
    )
    .action(async (from: string, to: string, { dtype, scales, shardSize, json = false }: Flags) => {
      const started = performance.now();
      using interrupt = interruptible("giving the conversion up");
      using progress = progressLine();
      try {
        const done = await convertCheckpoint(await findCheckpoint(from), to, {
          format: dtype,
          signal: interrupt.signal,
          onProgress: progress.show,
          ...(scales === undefined ? {} : { powerOfTwo: scales === "power-of-two" }),
          ...(shardSize === undefined ? {} : { shardBytes: shardSize }),
        });
        progress.clear();
        const seconds = (performance.now() - started) / 1000;
        process.stdout.write(json ? `${JSON.stringify({ ...done, seconds })}\n` : summary(done, seconds));
      } catch (error) {
        if (!interrupt.signal.aborted) throw error;
        process.exitCode = 130;
      }
    });
}

function summary(done: Conversion, seconds: number): string {
  const parts = [
    [done.quantized, "quantised to FP8"],
    [done.dequantized, "dequantised"],
    [done.rounded, "rounded or widened"],
    [done.copied, "copied as they were"],
  ] as const;
  const counts = parts.filter(([count]) => count > 0).map(([count, what]) => `${count} ${what}`);
  return `${done.to}: ${formatBytes(done.bytes)}, ${formatBytes(done.fromBytes)} before; weights: ${counts.join(", ")}; ${formatDuration(seconds)}\n`;
}

/** A line of its own on a terminal; nothing where nobody watches. */
function progressLine(): Disposable & { show(progress: ConvertProgress): void; clear(): void } {
  let shownAt = 0;
  const clear = (): void => {
    if (shownAt > 0) process.stderr.write("\r\u001b[K");
    shownAt = 0;
  };
  return {
    show({ tensors, ofTensors, bytes, ofBytes }) {
      if (!process.stderr.isTTY || performance.now() - shownAt < 200) return;
      shownAt = performance.now();
      process.stderr.write(
        `\r\u001b[K${tensors} of ${ofTensors} tensors, ${formatBytes(bytes)} of ${formatBytes(ofBytes)}`,
      );
    },
    clear,
    [Symbol.dispose]: clear,
  };
}
