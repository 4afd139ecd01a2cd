/** A machine on which the native addon was not built: everything works, slowly, and one line says what to install. */
import { cp, symlink } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { builtEntry, type Outcome, startProgram } from "../support/minke.ts";
import { nativeIsMissing } from "../support/native.ts";
import { scratchFolder } from "../support/scratchFolder.ts";
import { historyOf } from "../support/shortRun.ts";
import { writeTrainingText } from "../support/trainingText.ts";

const root = join(import.meta.dirname, "..", "..");

/** The package as it is installed, but for native/. */
async function packageWithoutNative(): Promise<string> {
  await builtEntry();
  const folder = await scratchFolder();
  for (const name of ["bin", "dist", "package.json"])
    await cp(join(root, name), join(folder, name), { recursive: true });
  await symlink(join(root, "node_modules"), join(folder, "node_modules"));
  return folder;
}

function minkeIn(folder: string, ...args: string[]): Promise<Outcome> {
  return startProgram(process.execPath, [join(folder, "bin", "minke.js"), ...args], { cwd: folder }).finished;
}

const install = /install Rust \(https:\/\/rustup\.rs\)/g;

test("train, generate and doctor use the reference backend, and each says once what to install", {
  timeout: 300_000,
}, async () => {
  const folder = await packageWithoutNative();
  await writeTrainingText(folder, 40);
  const set = [
    "data.tokenizer=bytes",
    "rowLength=16",
    "batchRows=1",
    "microBatchRows=1",
    "evaluate.lastRows=1",
  ];
  const args = ["train", "--preset", "unit", "--data", "text.txt", "--steps", "2", "--run", "run"];
  const trained = await minkeIn(folder, ...args, ...set.flatMap((setting) => ["--set", setting]));
  expect(trained.code).toBe(0);
  expect(trained.stdout.match(install)).toHaveLength(1);
  const [started] = (await historyOf(join(folder, "run"))).of("run.started");
  expect(started?.environment).toMatchObject({ backend: "reference", kernels: null });

  const written = await minkeIn(folder, "generate", "run", "--prompt", "The", "--max-tokens", "2");
  expect(written).toMatchObject({ code: 0, stdout: expect.stringMatching(/^The/) });
  expect(written.stderr.match(install)).toHaveLength(1);

  const doctor = await minkeIn(folder, "doctor");
  expect(doctor).toMatchObject({ code: 0, stderr: "" });
  expect(doctor.stdout).toMatch(/backend +reference, because/);
  expect(doctor.stdout.match(install)).toHaveLength(1);
});

// Takes a minute of a quiet processor; where the addon is, the quickstart trains something else.
test.runIf(nativeIsMissing)("the quickstart takes a few steps of micro", { timeout: 900_000 }, async () => {
  const folder = await packageWithoutNative();
  const { code, stdout } = await minkeIn(folder, "quickstart", "--run", "run");
  expect(code).toBe(0);
  expect(stdout.match(install)).toHaveLength(1);
  const history = await historyOf(join(folder, "run"));
  expect(history.of("step.completed")).toHaveLength(3);
  expect(history.of("sample.generated").length).toBeGreaterThan(0);
  expect(history.of("evaluation.completed")).toHaveLength(1);
});
