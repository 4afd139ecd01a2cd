/** `minke doctor`: what this machine can do, which backend is chosen and why, and whether it computes rightly. */
import { cpus, freemem, totalmem } from "node:os";
import { Command } from "commander";
import { openDevice } from "../api/index.ts";
import { BaseError, formatBytes, formatRate } from "../base/index.ts";
import { builtMpiAddons, libraryName, loadMpiAddon } from "../parallel/index.ts";
import { freeBytes } from "../run/index.ts";
import { loadAddon } from "../tensor/index.ts";
import { selfTest } from "./selfTest.ts";

interface Finding {
  readonly name: string;
  readonly value: string;
  readonly isGood: boolean;
}

export function doctorCommand(): Command {
  return new Command("doctor")
    .description("check this machine and the installation")
    .option("--json", "print one JSON object")
    .addHelpText("after", "\nExample:\n  minke doctor\n")
    .action(async ({ json = false }: { json?: boolean }) => {
      const findings = await examine();
      if (json)
        process.stdout.write(
          `${JSON.stringify(Object.fromEntries(findings.map(({ name, value, isGood }) => [name, { value, isGood }])))}\n`,
        );
      else
        for (const { name, value, isGood } of findings)
          process.stdout.write(`${isGood ? "ok  " : "BAD "} ${name.padEnd(14)} ${value}\n`);
      if (findings.some(({ isGood }) => !isGood)) process.exitCode = 1;
    });
}

async function examine(): Promise<readonly Finding[]> {
  const { addon, reason } = loadAddon();
  const good = (name: string, value: string): Finding => ({ name, value, isGood: true });
  const findings: Finding[] = [
    good("node", process.versions.node),
    good("platform", `${process.platform}-${process.arch}`),
    good("processor", `${cpus()[0]?.model.trim() ?? "unknown"}, ${cpus().length} cores`),
    good("memory", `${formatBytes(totalmem())}, ${formatBytes(freemem())} free`),
    good("disk", `${formatBytes(await freeBytes("."))} free here`),
    good(
      "features",
      addon === null ? "unknown without the native addon" : addon.info().cpuFeatures.join(" "),
    ),
  ];
  const { device, native, threads } = openDevice();
  try {
    findings.push(
      good(
        "backend",
        native === null
          ? `reference, because ${reason}; install Rust (https://rustup.rs), then npm run build`
          : `native, because its addon loads; ${native.isa} is the best instruction set it has for this processor`,
      ),
      good("threads", String(threads)),
      mpiFinding(),
    );
    if (native !== null) {
      const [f32, bf16] = [await native.peak("f32", 0.2), await native.peak("bf16", 0.2)];
      findings.push(
        good("peak", `${formatRate(f32, "FLOP")} in f32, ${formatRate(bf16, "FLOP")} in bf16, all threads`),
      );
    }
    const { isGood, text } = await selfTest(device);
    findings.push({ name: "self-test", value: text, isGood });
  } finally {
    await device.dispose();
  }
  return findings;
}

/** Only ranks in processes of their own need MPI: to lack it is no fault, to have a build that does not load is one. */
function mpiFinding(): Finding {
  const paths = builtMpiAddons(null);
  if (paths.length === 0) {
    const value =
      "not built; ranks on several machines need it: apt install openmpi-bin libopenmpi-dev, then node scripts/build-mpi.js";
    return { name: "MPI", value, isGood: true };
  }
  try {
    const names = paths.map((path) => libraryName(loadMpiAddon(path)));
    return { name: "MPI", value: `${names.join(", ")}; mpirun starts the ranks`, isGood: true };
  } catch (error) {
    if (!BaseError.isInstance(error)) throw error;
    return { name: "MPI", value: `${error.what}; ${error.fix}`, isGood: false };
  }
}
