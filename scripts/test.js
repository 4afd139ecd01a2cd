// Runs every suite that this machine can run and closes with one line: `N passed, N failed`.
// The Rust suites count too; with cargo on the machine they must have run.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const folder = mkdtempSync(join(tmpdir(), "minke-test-"));

const suites = [runTypeScript("vitest.config.ts"), runRust(), runTypeScript("vitest.alone.config.ts")];
rmSync(folder, { recursive: true, force: true });
const passed = suites.reduce((sum, suite) => sum + suite.passed, 0);
const failed = suites.reduce((sum, suite) => sum + suite.failed, 0);
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);

function runTypeScript(config) {
  const report = join(folder, `${config}.json`);
  const vitest = join(root, "node_modules", "vitest", "vitest.mjs");
  const options = [
    "run",
    "--config",
    config,
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${report}`,
  ];
  // A filter may leave one of the two suites without a file.
  if (process.argv.length > 2) options.push("--passWithNoTests");
  const { status } = spawnSync(process.execPath, [vitest, ...options, ...process.argv.slice(2)], {
    cwd: root,
    stdio: "inherit",
  });
  const { numPassedTests, numFailedTests, testResults } = JSON.parse(readFileSync(report, "utf8"));
  // A file that does not even load has no tests to fail, so it is counted itself.
  const broken = testResults.filter(
    (file) => file.status === "failed" && file.assertionResults.length === 0,
  ).length;
  const known = numFailedTests + broken;
  return { passed: numPassedTests, failed: status === 0 ? known : Math.max(1, known) };
}

function runRust() {
  if (spawnSync("cargo", ["--version"]).status !== 0) {
    const isAddonHere = existsSync(join(root, "native", `minke.${process.platform}-${process.arch}.node`));
    const left = isAddonHere
      ? "the Rust suites did not run"
      : "the Rust suites and all native tests did not run";
    console.log(`cargo was not found: ${left}. Install Rust (https://rustup.rs), then npm ci, to run them.`);
    return { passed: 0, failed: 0 };
  }
  const { status, stdout } = spawnSync("cargo", ["test", "--release", "--workspace", "--quiet"], {
    cwd: join(root, "native"),
    stdio: ["ignore", "pipe", "inherit"],
    encoding: "utf8",
    maxBuffer: 2 ** 28,
  });
  const results = [...stdout.matchAll(/test result: \w+\. (\d+) passed; (\d+) failed/g)];
  const passed = results.reduce((sum, match) => sum + Number(match[1]), 0);
  const failed = results.reduce((sum, match) => sum + Number(match[2]), 0);
  if (status !== 0) console.log(stdout);
  console.log(`cargo test: ${passed} passed, ${failed} failed`);
  return { passed, failed: status === 0 && passed > 0 ? failed : Math.max(1, failed) };
}
