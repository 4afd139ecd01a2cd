/** `minke inspect`: what a checkpoint holds, without loading it. */
import { Command } from "commander";
import { formatBytes, formatCount } from "../base/index.ts";
import { type DtypeShare, findCheckpoint, type Inspection, inspectCheckpoint } from "../checkpoint/index.ts";

export function inspectCommand(): Command {
  return new Command("inspect")
    .description("show a checkpoint's config, parameters and tensors")
    .argument("<checkpoint>", "run folder, checkpoint, or a folder in Hugging Face layout")
    .option("--json", "print one JSON object")
    .addHelpText(
      "after",
      "\nExamples:\n  minke inspect runs/2026-11-21-nano-1\n  minke inspect model/ --json | jq .parameters\n",
    )
    .action(async (path: string, { json = false }: { json?: boolean }) => {
      const found = await inspectCheckpoint(await findCheckpoint(path));
      if (json) {
        process.stdout.write(`${JSON.stringify(found)}\n`);
        return;
      }
      const { config, parameters, tensors } = found;
      const dtypeWidth = Math.max(5, ...tensors.map(({ dtype }) => dtype.length));
      const whole =
        found.isWhole === null
          ? "no hashes to check"
          : found.isWhole
            ? "whole: every hash is right"
            : `damaged: ${found.damage}`;
      const lines = [
        `${found.path}`,
        `  ${whole}`,
        `  ${config.numHiddenLayers} layers (${config.firstKDenseReplace} dense), width ${config.hiddenSize}, ${config.nRoutedExperts} experts of which ${config.numExpertsPerTok}, MTP depth ${config.numNextnPredictLayers}`,
        `  ${formatCount(parameters.main)} parameters, ${formatCount(parameters.active.all)} per token, ${formatCount(parameters.stored)} stored with MTP`,
        `  ${tensors.length} tensors, ${formatBytes(found.bytes)}: ${storedAs(found)}`,
        "",
        ...tensors.map(
          ({ name, dtype, shape }) =>
            `  ${dtype.padEnd(dtypeWidth)} ${`[${shape.join(", ")}]`.padEnd(16)} ${name}`,
        ),
      ];
      process.stdout.write(`${lines.join("\n")}\n`);
      if (found.isWhole === false) process.exitCode = 1;
    });
}

/** `9.2M numbers F8_E4M3 with 680 F32 scales, 1.1M BF16`. */
function storedAs({ dtypes, scales }: Inspection): string {
  const scaled = scales === null ? "" : ` with ${formatCount(scales.numbers)} ${scales.dtype} scales`;
  const part = ({ dtype, numbers }: DtypeShare, i: number): string =>
    `${formatCount(numbers)}${i === 0 ? " numbers" : ""} ${dtype}${dtype === "F8_E4M3" ? scaled : ""}`;
  return dtypes.map(part).join(", ");
}
