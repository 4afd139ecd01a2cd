/** What happens to a run that had begun well: damage, rivals, a full disk, a reader that leaves, a narrow window. */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { verifyCheckpoint } from "../../src/checkpoint/index.ts";
import { readManifest } from "../../src/run/index.ts";
import { expectOneError } from "../support/badInput.ts";
import { builtEntry, minke, type Outcome, startMinke, startProgram } from "../support/minke.ts";
import { historyOf, seenSteps } from "../support/shortRun.ts";
import { cutOff, flipBit } from "../support/spoiltCheckpoint.ts";
import { sentences, writeTrainingText } from "../support/trainingText.ts";

let folder: string;
let stopped: Promise<string> | undefined;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "minke-accident-"));
  await writeTrainingText(folder, 100);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

function trainInto(run: string, steps: number, ...settings: string[]): string[] {
  const set = ["data.tokenizer=bytes", "batchRows=4", "microBatchRows=4", ...settings];
  return [
    ...["train", "--preset", "unit", "--data", "text.txt", "--run", run, "--steps", String(steps)],
    ...["--threads", "1", ...set.flatMap((setting) => ["--set", setting])],
  ];
}

/** A copy of a run that holds checkpoints of steps 4 and 6 of 6. */
async function copyOfRun(name: string): Promise<string> {
  stopped ??= (async () => {
    const { code } = await minke(trainInto("origin", 6, "checkpoint.everySteps=2"), { cwd: folder });
    expect(code).toBe(0);
    return join(folder, "origin");
  })();
  await cp(await stopped, join(folder, name), { recursive: true });
  return name;
}

describe("a damaged newest checkpoint", () => {
  test.each([
    ["was cut off", cutOff],
    ["has one bit turned", flipBit],
  ])("that %s is named, and the run goes on from the one before", async (how, spoil) => {
    const run = await copyOfRun(`damaged ${how}`);
    await spoil(join(folder, run, "checkpoints", "step-6", "optimizer.safetensors"));
    const { code, stdout } = await minke(["train", "--run", run, "--resume"], { cwd: folder });
    expect(code).toBe(0);
    expect(stdout).toMatch(/step-6.*(bytes|sha256)/);
    const history = await historyOf(join(folder, run));
    expect(history.of("checkpoint.damaged")).toMatchObject([{ step: 6, fallback: "checkpoints/step-4" }]);
    expect(history.of("run.resumed")).toMatchObject([{ step: 4, repeatedSteps: 2 }]);
    expect(history.of("step.completed").map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6]);
    expect((await verifyCheckpoint(join(folder, run, "checkpoints", "step-6"))).reason).toBeNull();
  });

  test("with no other left means that the run starts again, and says so", async () => {
    const run = await copyOfRun("all damaged");
    for (const step of [4, 6])
      await flipBit(join(folder, run, "checkpoints", `step-${step}`, "model.safetensors"));
    const { code, stdout } = await minke(["train", "--run", run, "--resume"], { cwd: folder });
    expect(code).toBe(0);
    expect(stdout).toContain("the run has no whole checkpoint: it starts again from its first step");
    const history = await historyOf(join(folder, run));
    expect(history.of("run.started")).toHaveLength(1);
    expect(history.of("step.completed").map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6]);
  });
});

describe("two runs in one folder", () => {
  test("cannot be: the second is refused and the first does not notice", async () => {
    const first = await startMinke([...trainInto("contended", 10_000), "--json"], { cwd: folder });
    await seenSteps(first.child.stdout, 2);
    const fresh = await minke(trainInto("contended", 5), { cwd: folder });
    expectOneError(fresh, /contended already holds a run/);
    const resumed = await minke(["train", "--run", "contended", "--resume"], { cwd: folder });
    expectOneError(
      resumed,
      new RegExp(`held by process ${first.child.pid} on .*[\\s\\S]*overwrite each other`),
    );
    first.child.kill("SIGTERM");
    expect((await first.finished).code).toBe(130);
    const history = await historyOf(join(folder, "contended"));
    expect(history.of("run.interrupted")).toMatchObject([{ signal: "SIGTERM" }]);
    expect(history.of("run.failed")).toEqual([]);
  });
});

describe("Ctrl-C before the first step", () => {
  test("leaves nothing behind and says which command to give again", async () => {
    // Long enough for the signal to come while the tokenizer is trained.
    await writeFile(join(folder, "long.txt"), sentences(20_000));
    const args = ["train", "--preset", "unit", "--data", "long.txt", "--run", "early"];
    const { child, finished } = await startMinke(args, { cwd: folder });
    child.stderr?.once("data", () => child.kill("SIGINT"));
    const { code, stdout, stderr } = await finished;
    expect({ code, stderr }).toMatchObject({ code: 130 });
    expect(stdout).toMatch(
      /interrupted .*SIGINT[\s\S]*minke train --preset unit --data long\.txt --run early/,
    );
    expect(await readdir(folder)).not.toContain("early");
  });
});

describe("a run with a time budget that dies before its speed is measured", () => {
  test("keeps its minutes: --resume measures and trains for them, under the settings it was given", async () => {
    await writeFile(join(folder, "longer.txt"), sentences(20_000));
    const set = [
      ...["data.tokenizer=bytes", "batchRows=4", "microBatchRows=4", "optimizer.beta2=0.9"],
      "evaluate.lastRows=4",
    ];
    const { child, finished } = await startMinke(
      [
        ...["train", "--preset", "unit", "--data", "longer.txt", "--run", "hasty", "--minutes", "0.01"],
        ...["--seed", "5", "--threads", "1", ...set.flatMap((setting) => ["--set", setting])],
      ],
      { cwd: folder },
    );
    child.stderr?.once("data", () => child.kill("SIGKILL"));
    expect((await finished).code).toBe(137);
    expect((await readManifest(join(folder, "hasty"))).unsettled).toMatchObject({ minutes: 0.01 });

    const { code, stderr } = await minke(["train", "--run", "hasty", "--resume"], { cwd: folder });
    expect(code).toBe(0);
    expect(stderr).toContain("measuring the speed of this machine");
    const { config, unsettled } = await readManifest(join(folder, "hasty"));
    expect(unsettled).toBeNull();
    // 0.6 s are far fewer steps than the thousand of a run that names neither steps nor minutes.
    expect(config["steps"]).toBeLessThan(900);
    expect(config).toMatchObject({ seed: 5, batchRows: 4, optimizer: { beta2: 0.9 } });
    const history = await historyOf(join(folder, "hasty"));
    expect(history.of("run.started")).toMatchObject([{ config }]);
    // How many steps there are follows from the machine's speed, and with it whether one of them is a spike and skipped.
    const steps = [...history.of("step.completed"), ...history.of("step.skipped")].map(({ step }) => step);
    const all = Array.from({ length: config["steps"] as number }, (_, i) => i + 1);
    expect(steps.sort((a, b) => a - b)).toEqual(all);
  });
});

test("what a run is resumed with is in its event and in its report", async () => {
  const run = await copyOfRun("changed");
  const change = ["--set", "steps=8", "--set", "optimizer.learningRate=0.0005"];
  // From another folder than it was begun in.
  const cwd = join(folder, run);
  const { code, stdout } = await minke(["train", "--run", ".", "--resume", ...change], { cwd });
  expect(code).toBe(0);
  expect(stdout).toContain("optimizer.learningRate=0.0005");
  const [resumed] = (await historyOf(join(folder, run))).of("run.resumed");
  expect(resumed?.config).toMatchObject({ steps: 8, optimizer: { learningRate: 0.0005 } });
  expect(await readFile(join(folder, run, "report.md"), "utf8")).toMatch(/optimizer.learningRate.*0\.0005/);
});

/** Containers may forbid mounts; there badInputs.test.ts still holds the check before the first step. */
const canMount = spawnSync("unshare", ["-rm", "mount", "-t", "tmpfs", "tmpfs", tmpdir()]).status === 0;

describe("a full disk", () => {
  test.runIf(canMount)(
    "ends the run with one message; the checkpoint before is whole and the run can be resumed",
    async () => {
      const outcome = await runOnFullDisk();
      expectOneError(outcome, /free, .* are needed for a checkpoint|no space left/);
      const run = join(folder, "kept", "run");
      const steps = (await readdir(join(run, "checkpoints"))).filter((name) => name.startsWith("step-"));
      expect(steps.length).toBeGreaterThan(0);
      const latest = (await readFile(join(run, "latest"), "utf8")).trim();
      expect((await verifyCheckpoint(join(run, "checkpoints", latest))).reason).toBeNull();
      const resumed = await minke(["train", "--run", run, "--resume", "--set", "steps=6"], { cwd: folder });
      expect({ code: resumed.code, stderr: resumed.stderr }).toMatchObject({ code: 0 });
    },
  );
});

/**
 * Trains in a file system of 128 MiB that is filled up as soon as the first checkpoint is whole, and copies what is
 * left to `kept`. The file system is mounted in a namespace of the command's own and vanishes with it.
 */
async function runOnFullDisk(): Promise<Outcome> {
  const script = `
    mkdir small kept && mount -t tmpfs -o size=128m tmpfs small || exit 99
    "$0" "$@" & training=$!
    while kill -0 $training && [ ! -e small/run/latest ]; do sleep 0.02; done 2>/dev/null
    dd if=/dev/zero of=small/filler bs=1M 2>/dev/null
    wait $training; code=$?
    rm small/filler; cp -r small/run kept/; exit $code`;
  const args = trainInto("small/run", 3000, "checkpoint.everySteps=5");
  const command = [process.execPath, await builtEntry(), ...args];
  return startProgram("unshare", ["-rm", "sh", "-c", script, ...command], { cwd: folder }).finished;
}

describe("a reader that has seen enough", () => {
  test("does not end a run: `| head -1` gets its line, and the run its last step", async () => {
    const command = [process.execPath, await builtEntry(), ...trainInto("read", 40), "--json"];
    const script = 'set -o pipefail; "$0" "$@" | head -1';
    const { code, stdout } = await startProgram("bash", ["-c", script, ...command], { cwd: folder }).finished;
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ type: "run.started" });
    expect((await historyOf(join(folder, "read"))).of("run.completed")).toHaveLength(1);
  });

  test("does not end a run by leaving standard error either", async () => {
    const command = [process.execPath, await builtEntry(), ...trainInto("unheard", 5)];
    const script = 'set -o pipefail; "$0" "$@" 2>&1 >/dev/null | true';
    const { code } = await startProgram("bash", ["-c", script, ...command], { cwd: folder }).finished;
    expect(code).toBe(0);
    expect((await historyOf(join(folder, "unheard"))).of("run.completed")).toHaveLength(1);
  });

  test.runIf(existsSync("/dev/full"))(
    "output to a full disk: a text ends in one error, a run goes on",
    async () => {
      const run = await copyOfRun("full output");
      const script = '"$0" "$@" >/dev/full';
      const inspect = [process.execPath, await builtEntry(), "inspect", run];
      const text = await startProgram("bash", ["-c", script, ...inspect], { cwd: folder }).finished;
      expectOneError(text, /standard output takes no more text/);
      const train = [process.execPath, await builtEntry(), ...trainInto("full log", 5)];
      const { code, stderr } = await startProgram("bash", ["-c", script, ...train], { cwd: folder }).finished;
      expect({ code, stderr }).toMatchObject({ code: 0, stderr: expect.stringContaining("the run goes on") });
      expect(stderr.match(/takes no more text/g)).toHaveLength(1);
      expect((await historyOf(join(folder, "full log"))).of("run.completed")).toHaveLength(1);
    },
  );

  test("ends a text that nobody reads any more", async () => {
    const run = await copyOfRun("unread");
    const command = [process.execPath, await builtEntry(), "inspect", run];
    const { code, stdout, stderr } = await startProgram(
      "bash",
      ["-c", 'set -o pipefail; "$0" "$@" | head -1', ...command],
      { cwd: folder },
    ).finished;
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toBe("unread/checkpoints/step-6\n");
  });
});

describe("a terminal that is closed", () => {
  test("does not cost the run: it writes a checkpoint, as at Ctrl-C", async () => {
    const { child, finished } = await startMinke([...trainInto("hung up", 10_000), "--json"], {
      cwd: folder,
    });
    await seenSteps(child.stdout, 2);
    child.kill("SIGHUP");
    expect((await finished).code).toBe(130);
    const [interrupted] = (await historyOf(join(folder, "hung up"))).of("run.interrupted");
    expect(interrupted).toMatchObject({
      signal: "SIGHUP",
      checkpoint: `checkpoints/step-${interrupted?.step}`,
    });
  });
});

describe("a terminal of 20 columns", () => {
  test("shows a progress line that is never wider, and every message", async () => {
    const command = [process.execPath, await builtEntry(), ...trainInto("narrow", 30)];
    const quoted = command.map((word) => `'${word}'`).join(" ");
    const { code, stdout } = await startProgram("script", ["-qec", `stty cols 20; ${quoted}`, "/dev/null"], {
      cwd: folder,
    }).finished;
    expect(code).toBe(0);
    // Between "do not wrap" and "wrap" stands the live line.
    const lines = stdout
      .split("\x1b[?7l")
      .slice(1)
      .map((part) => part.split("\x1b[?7h")[0]!);
    expect(lines.length).toBeGreaterThan(2);
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(20);
    expect(lines.at(-1)).toMatch(/30\/30|30/);
    expect(stdout).toContain("done");
  });
});
