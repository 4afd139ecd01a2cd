/** `minke bench`: how fast this machine multiplies and trains, as shares of its own peak and beside PyTorch. */
import { Command } from "commander";
import { type OpenDevice, openDevice } from "../api/index.ts";
import { BackendError } from "../base/index.ts";
import { benchKernels } from "./benchKernels.ts";
import { benchPeers } from "./benchPeers.ts";
import type { BenchFlags, BenchRow } from "./benchRow.ts";
import { benchStep } from "./benchStep.ts";
import { choiceOption, threadsOption } from "./options.ts";

export function benchCommand(): Command {
  const bench = new Command("bench").description("measure kernels, training steps, or PyTorch beside them");
  const add = (name: string, description: string, run: (flags: BenchFlags) => Promise<void>): void => {
    bench
      .command(name)
      .description(description)
      .option("--preset <name>", "micro, nano or mini", "nano")
      .option("--precision <p>", "bf16 or f32", choiceOption("--precision", ["f32", "bf16"]), "bf16")
      .option("--threads <n>", "threads that compute", threadsOption)
      .option("--json", "print one JSON object per row")
      .addHelpText("after", `\nExample:\n  minke bench ${name} --json\n`)
      .action(run);
  };
  add("kernels", "matrix products as shares of the register peak", (flags) =>
    withNative(flags, (opened) => benchKernels(opened, flags)),
  );
  add("step", "training steps of a preset", (flags) =>
    withNative(flags, (opened) => benchStep(opened, flags)),
  );
  add("peers", "training steps of a preset, ours and PyTorch's in turn", (flags) =>
    withNative(flags, (opened) => benchPeers(opened, flags)),
  );
  return bench;
}

async function withNative(
  flags: BenchFlags,
  run: (opened: OpenDevice) => Promise<readonly BenchRow[]>,
): Promise<void> {
  const opened = openDevice({ threads: flags.threads });
  try {
    if (opened.native === null) {
      throw new BackendError("there is nothing to measure without the native backend", {
        why: opened.warning?.why ?? "the reference backend is made to be read",
        fix: "install Rust (https://rustup.rs), then npm run build",
      });
    }
    for (const row of await run(opened))
      process.stdout.write(`${flags.json === true ? JSON.stringify(row) : rowText(row)}\n`);
  } finally {
    await opened.device.dispose();
  }
}

function rowText({ name, ...figures }: BenchRow): string {
  const text = Object.entries(figures).map(
    ([key, value]) => `${key} ${typeof value === "number" ? Number(value.toPrecision(4)) : value}`,
  );
  return `${name.padEnd(44)} ${text.join("  ")}`;
}
