/**
 * The stable surface, pinned: what is in this file may be added to, but not taken away or renamed.
 *
 * Read from the command tree that the program itself is made of; the exit codes and events from runs of it.
 */

import { spawnSync } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Command } from "commander";
import { describe, expect, test } from "vitest";
import { makeProgram } from "../../src/cli/main.ts";
import * as minkePackage from "../../src/index.ts";
import { builtEntry, minke } from "../support/minke.ts";
import { scratchFolder } from "../support/scratchFolder.ts";
import { historyOf } from "../support/shortRun.ts";
import { decodeTensorBoard } from "../support/tensorBoardFile.ts";
import { writeTrainingText } from "../support/trainingText.ts";

const root = join(import.meta.dirname, "..", "..");

/** Every verb with its arguments and flags. A new flag is added here in the same commit. */
const surface: Readonly<Record<string, readonly string[]>> = {
  train: [
    "--preset <name>",
    "--data <path>",
    "--steps <n>",
    "--minutes <m>",
    "--seed <s>",
    "--threads <n>",
    "--precision <p>",
    "--run <dir>",
    "--resume",
    "--set <path=value>",
    "--backend <name>",
    "--ranks <n>",
    "--layout <places>",
    "--schedule <name>",
    "--ranks-per-node <n>",
    "--zero1",
    "--trace [steps]",
    "--tensorboard",
    "--json",
  ],
  generate: [
    "<checkpoint-or-run>",
    "--prompt <text>",
    "--max-tokens <n>",
    "--temperature <t>",
    "--top-p <p>",
    "--top-k <k>",
    "--seed <s>",
    "--stop <text>",
    "--threads <n>",
    "--backend <name>",
    "--json",
  ],
  inspect: ["<checkpoint>", "--json"],
  convert: ["<checkpoint>", "<folder>", "--dtype <name>", "--scales <form>", "--shard-size <size>", "--json"],
  doctor: ["--json"],
  "bench messages": ["--rounds <n>", "--json"],
  "bench schedules": [
    "--ranks <n>",
    "--micro-batches <n>",
    "--schedule <name>",
    "--pace <file>",
    "--rounds <n>",
    "--trace <folder>",
    "--json",
  ],
  "bench overlap": ["--ranks <n>", "--micro-batches <n>", "--rounds <n>", "--trace <folder>", "--json"],
  trace: ["<run>", "--html <file>", "--json <file>"],
  "bench ranks": [
    "--preset <name>",
    "--precision <p>",
    "--threads <n>",
    "--rounds <n>",
    "--json",
    "--ranks <n>",
  ],
  "bench kernels": ["--preset <name>", "--precision <p>", "--threads <n>", "--rounds <n>", "--json"],
  "bench step": [
    "--preset <name>",
    "--precision <p>",
    "--threads <n>",
    "--rounds <n>",
    "--json",
    "--trace <file>",
  ],
  "bench costs": ["--preset <name>", "--precision <p>", "--threads <n>", "--rounds <n>", "--json"],
  "bench peers": ["--preset <name>", "--precision <p>", "--threads <n>", "--rounds <n>", "--json"],
  "bench serve": ["--preset <name>", "--precision <p>", "--threads <n>", "--rounds <n>", "--json"],
  ablate: [
    "[names...]",
    "--data <path>",
    "--preset <name>",
    "--steps <n>",
    "--seeds <n>",
    "--only <names>",
    "--set <path=value>",
    "--threads <n>",
    "--backend <name>",
    "--json",
  ],
  "tokenizer train": ["--data <path>", "--out <dir>", "--vocab-size <n>", "--json"],
  "tokenizer encode": ["[text]", "--tokenizer <path>", "--special", "--json"],
  "tokenizer decode": ["[ids...]", "--tokenizer <path>"],
  "data prepare": [
    "--data <path>",
    "--out <dir>",
    "--tokenizer <path>",
    "--row-length <n>",
    "--seed <s>",
    "--json",
  ],
  "data inspect": ["<paths...>", "--tokenizer <path>", "--json"],
  plan: [
    "--model <name>",
    "--cluster <name>",
    "--layout <parts>",
    "--schedule <name>",
    "--precision <p>",
    "--batch-rows <n>",
    "--row-length <n>",
    "--tokens <n>",
    "--sweep",
    "--serving",
    "--loads <file>",
    "--html <file>",
    "--json",
  ],
  "runs list": ["--root <dir>", "--json"],
  "runs compare": ["<runs...>", "--root <dir>", "--json"],
  quickstart: ["--minutes <m>", "--run <dir>", "--threads <n>", "--json"],
};

/** Keys of the events that programs read; an event may gain keys. */
const eventKeys: Readonly<Record<string, readonly string[]>> = {
  "run.started": ["runId", "version", "command", "config", "environment", "model", "memory", "plannedSteps"],
  "data.prepared": ["source", "documents", "bytes", "tokens", "train", "validation", "vocabSize"],
  "tokenizer.trained": ["vocabSize", "numMerges", "bytes", "bytesPerToken", "seconds"],
  "step.completed": [
    ...["step", "tokensSeen", "loss", "mainLoss", "mtpLosses", "balanceLoss", "bitsPerByte", "gradNorm"],
    ...["learningRate", "gamma", "mtpWeight", "batchRows", "tokensPerSecond", "shareOfPeak", "seconds"],
    ...["expertLoad", "maxViolation", "liveBytes", "rssBytes"],
  ],
  "router.bias": ["step", "layers"],
  "evaluation.completed": ["step", "split", "loss", "bitsPerByte", "nextNextTokenAccuracy", "tokens"],
  "sample.generated": ["step", "prompt", "text"],
  "checkpoint.written": ["step", "path", "bytes", "seconds", "reason"],
  "run.completed": ["step", "tokensSeen", "seconds"],
  "run.phase": ["name", "seconds"],
};

function leaves(command: Command, path: string): [string, Command][] {
  if (command.commands.length === 0) return [[path, command]];
  return command.commands.flatMap((child) => leaves(child, `${path} ${child.name()}`.trim()));
}

const verbs: readonly [string, Command][] = leaves(makeProgram(), "");

describe("the command line", () => {
  test("has the verbs, arguments and flags of the stable surface", () => {
    const found = verbs.map(([path, command]) => {
      const help = command.createHelp();
      const args = command.registeredArguments.map((argument) => help.argumentTerm(argument));
      const usage = command.registeredArguments.map(({ required, variadic }, i) => {
        const name = `${args[i]}${variadic ? "..." : ""}`;
        return required ? `<${name}>` : `[${name}]`;
      });
      const flags = command.options.map((option) => option.flags);
      return [path, [...usage, ...flags]];
    });
    expect(Object.fromEntries(found)).toEqual(surface);
  });

  test.each(verbs.map(([path]) => path))(
    "`minke %s --help` describes every flag and gives an example",
    async (path) => {
      const { code, stdout, stderr } = await minke([...path.split(" "), "--help"], {
        cwd: await scratchFolder(),
      });
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      const [, example = ""] = stdout.split(/\nExamples?:\n/);
      expect(example).toContain(`minke ${path}`);
      for (const flag of surface[path]!.filter((word) => word.startsWith("--"))) {
        expect(stdout).toMatch(new RegExp(`${flag.replaceAll(/[[\]<>]/g, ".")}\\s+\\S+`));
      }
    },
  );

  test("`minke` alone shows the verbs; --version shows the package's", async () => {
    const cwd = await scratchFolder();
    const alone = await minke([], { cwd });
    expect(alone).toMatchObject({ code: 0, stderr: "" });
    for (const verb of makeProgram().commands) expect(alone.stdout).toContain(`  ${verb.name()} `);
    expect(await minke(["--version"], { cwd })).toEqual({
      code: 0,
      stdout: `${minkePackage.version}\n`,
      stderr: "",
    });
  });

  test("nearest names are suggested for verbs, flags, presets and settings", async () => {
    const cwd = await scratchFolder();
    const wrong: [string[], string][] = [
      [["generat"], "generate"],
      [["runs", "lst"], "list"],
      [["generate", "x", "--temprature", "1"], "--temperature"],
      [["train", "--preset", "mirco", "--data", "x"], "--preset micro"],
      [["train", "--preset", "unit", "--data", "x", "--set", "optimiser.learningRate=1"], "optimizer"],
    ];
    for (const [args, nearest] of wrong) {
      const { code, stderr } = await minke(args, { cwd });
      expect(code).toBe(1);
      expect(stderr.split("fix: ")[1]).toContain(nearest);
    }
  });
});

describe("a run", () => {
  test("prints its events as JSON lines, ends with code 0, and leaves the promised folder", async () => {
    const cwd = await scratchFolder();
    await writeTrainingText(cwd, 300);
    const set = [
      "model.vocabSize=380",
      "batchRows=4",
      "microBatchRows=4",
      'sample.prompts=["The whale"]',
      "sample.maxTokens=4",
      "evaluate.everySteps=2",
    ];
    const { code, stdout, stderr } = await minke(
      [
        ...["train", "--preset", "unit", "--data", "text.txt", "--steps", "3", "--run", "run", "--json"],
        ...set.flatMap((setting) => ["--set", setting]),
      ],
      { cwd },
    );
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const events = stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    for (const event of events) expect(event).toMatchObject({ schema: 1, time: expect.any(String) });
    for (const [type, keys] of Object.entries(eventKeys)) {
      const event = events.find((candidate) => candidate["type"] === type);
      expect([type, ...Object.keys(event ?? {})]).toEqual(expect.arrayContaining([...keys]));
    }
    expect(await readFile(join(cwd, "run", "events.jsonl"), "utf8")).toBe(stdout);
    expect((await historyOf(join(cwd, "run"))).of("step.completed")).toHaveLength(3);
    const names = await readdir(join(cwd, "run"));
    expect(names).toEqual(
      expect.arrayContaining([
        "run.json",
        "events.jsonl",
        "checkpoints",
        "latest",
        "report.md",
        "report.html",
      ]),
    );
    expect(await readFile(join(cwd, "run", "latest"), "utf8")).toBe("step-3\n");
    expect(await readdir(join(cwd, "run", "checkpoints", "step-3"))).toEqual(
      expect.arrayContaining([
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
      ]),
    );
  });
});

test("`--tensorboard` writes every step's loss where TensorBoard looks for it", async () => {
  const cwd = await scratchFolder();
  await writeTrainingText(cwd, 100);
  const args = [
    "train",
    "--preset",
    "unit",
    "--data",
    "text.txt",
    "--steps",
    "3",
    "--run",
    "run",
    "--tensorboard",
  ];
  const set = ["data.tokenizer=bytes", "batchRows=4", "microBatchRows=4"];
  const { code } = await minke([...args, ...set.flatMap((setting) => ["--set", setting])], { cwd });
  expect(code).toBe(0);
  const [name, ...others] = await readdir(join(cwd, "run", "tensorboard"));
  expect(others).toEqual([]);
  const records = decodeTensorBoard(await readFile(join(cwd, "run", "tensorboard", name!)));
  const losses = records.filter(({ scalars }) => "loss/total" in scalars);
  const steps = (await historyOf(join(cwd, "run"))).of("step.completed");
  expect(losses.map(({ step, scalars }) => [step, scalars["loss/total"]])).toEqual(
    steps.map(({ step, loss }) => [step, Math.fround(loss)]),
  );
  expect(records.some(({ scalars }) => "validation/bits_per_byte" in scalars)).toBe(true);
});

describe("in code", () => {
  test("the package exports trainModel and loadModel", () => {
    expect(minkePackage.trainModel).toBeTypeOf("function");
    expect(minkePackage.loadModel).toBeTypeOf("function");
    expect(Object.keys(minkePackage).sort()).toEqual(["BaseError", "loadModel", "trainModel", "version"]);
  });
});

/** Every room that can be imported by itself, and something that is in it. */
const rooms: Readonly<Record<string, string>> = {
  tensor: "QueueDevice",
  text: "trainTokenizer",
  model: "Transformer",
  parallel: "planDualPipe",
  checkpoint: "readModel",
  train: "trainLoop",
  engine: "generateIds",
  planner: "planServing",
};

test("every room is imported by its name, with types, and none of its files are", async () => {
  await builtEntry();
  const { exports } = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as {
    exports: Record<string, { types: string } | string>;
  };
  const paths = Object.keys(exports).filter((path) => path !== "." && path !== "./package.json");
  expect(paths.toSorted()).toEqual(
    Object.keys(rooms)
      .map((room) => `./${room}`)
      .toSorted(),
  );
  // A process of its own: the names are found as another package finds them.
  const program = `
    for (const [room, name] of Object.entries(${JSON.stringify(rooms)}))
      console.log(room, typeof (await import("minke/" + room))[name]);
    console.log(await import("minke/parallel/index.js").catch((error) => error.code));`;
  const { status, stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
    cwd: root,
    encoding: "utf8",
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  const lines = Object.keys(rooms).map((room) => `${room} function`);
  expect(stdout.trimEnd().split("\n")).toEqual([...lines, "ERR_PACKAGE_PATH_NOT_EXPORTED"]);
  for (const room of Object.keys(rooms)) {
    const { types } = exports[`./${room}`] as { types: string };
    expect(await readFile(join(root, types), "utf8")).toContain(rooms[room]);
  }
});

test("`minke help`, with a verb or without, is what --help prints", async () => {
  const cwd = await scratchFolder();
  for (const words of [[], ["train"], ["bench", "step"]]) {
    const asked = await minke(["help", ...words], { cwd });
    expect(asked).toMatchObject({ code: 0, stderr: "" });
    expect(asked.stdout).toBe((await minke([...words, "--help"], { cwd })).stdout);
  }
});
