/** What can be mistyped. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { BadInput } from "../../support/badInput.ts";

const train = ["train", "--preset", "unit", "--data", "text.txt", "--run", "new"];
const withSetting = (setting: string): string[] => [...train, "--set", setting];

export const badCommandLines: readonly BadInput[] = [
  { name: "an unknown flag", make: () => ["train", "--stepz", "3"], says: /option '--stepz'[\s\S]*--steps/ },
  { name: "a misspelt verb", make: () => ["trian"], says: /'trian'[\s\S]*fix: .*train/ },
  {
    name: "a misspelt verb of a group",
    make: () => ["tokenizer", "encod"],
    says: /'encod'[\s\S]*fix: .*encode/,
  },
  { name: "a group without a verb", make: () => ["data"], says: /data needs one of prepare, inspect/ },
  {
    name: "an argument that is missing",
    make: () => ["generate"],
    says: /checkpoint-or-run[\s\S]*fix: minke generate --help/,
  },
  {
    name: "a path that is empty",
    make: () => ["generate", ""],
    says: /path of the model is empty[\s\S]*variable/,
  },
  {
    name: "a model that nobody can measure beside others",
    make: () => ["bench", "peers", "--preset", "nope"],
    says: /"nope" is nothing that can be measured/,
  },
  {
    name: "a product where ops of a model are timed",
    make: () => ["bench", "kernels", "--preset", "gemm"],
    says: /"gemm" is nothing that can be measured/,
  },
  {
    name: "a trace below a folder that is not there",
    make: () => ["bench", "step", "--preset", "nano", "--trace", "nowhere/trace.json"],
    says: /cannot write the trace: nowhere\/trace\.json is not there/,
  },
  {
    name: "a folder for a trace",
    make: () => ["bench", "step", "--preset", "nano", "--trace", "."],
    says: /cannot write the trace: \. is a folder/,
  },
  { name: "an argument too many", make: () => ["inspect", "a", "b"], says: /too many arguments/ },
  {
    name: "a misspelt preset",
    make: () => ["train", "--preset", "nanoo", "--data", "text.txt"],
    says: /no preset "nanoo"[\s\S]*fix: use --preset nano\n/,
  },
  {
    name: "a preset that is for planning",
    make: () => ["train", "--preset", "v3-671b", "--data", "text.txt", "--run", "new"],
    says: /v3-671b is for planning[\s\S]*memory of one machine/,
  },
  {
    name: "an ablation that there is not",
    make: () => ["ablate", "--data", "text.txt", "--only", "mtp,mue"],
    says: /there is no ablation "mue"\n.*mtp, balance, moe, optimizer/,
  },
  {
    name: "an ablation without text",
    make: () => ["ablate", "--only", "mtp"],
    says: /required option '--data/,
  },
  {
    name: "an unknown setting",
    make: () => withSetting("model.nGroups=2"),
    says: /model\.nGroups is not a known setting[\s\S]*fix: write model\.nGroup\n/,
  },
  {
    name: "a setting without its value",
    make: () => withSetting("model.nGroup"),
    says: /"model\.nGroup" is not of the form path=value/,
  },
  {
    name: "groups that do not divide the experts",
    make: () => withSetting("model.nGroup=3"),
    says: /model\.nGroup is 3\n.*split evenly/,
  },
  {
    name: "more groups for a token than there are",
    make: () => withSetting("model.topkGroup=5"),
    says: /model\.topkGroup is 5\n.*more groups than there are/,
  },
  {
    name: "an odd number of rotary channels",
    make: () => withSetting("model.qkRopeHeadDim=7"),
    says: /qkRopeHeadDim is 7\n.*come in pairs/,
  },
  {
    name: "a negative learning rate",
    make: () => withSetting("optimizer.learningRate=-1"),
    says: /learningRate is -1\n.*more than 0/,
  },
  {
    name: "a word where a number belongs",
    make: () => withSetting("batchRows=many"),
    says: /batchRows is "many"\n.*a number/,
  },
  {
    name: "rows longer than the context",
    make: () => withSetting("rowLength=64"),
    says: /rowLength is 64\n.*context/,
  },
  {
    name: "micro-batches that do not divide the batch",
    make: () => withSetting("microBatchRows=7"),
    says: /microBatchRows is 7.*\n.*equal micro-batches[\s\S]*divisor/,
  },
  {
    name: "a batch that no machine can hold",
    make: () => withSetting("batchRows=100000000"),
    says: /batchRows is 100000000.*\n.*at most 268435456 tokens/,
  },
  { name: "no steps", make: () => [...train, "--steps", "0"], says: /--steps "0" is not a whole number/ },
  { name: "steps in words", make: () => [...train, "--steps", "ten"], says: /--steps "ten"/ },
  {
    name: "steps and minutes",
    make: () => [...train, "--steps", "3", "--minutes", "1"],
    says: /--steps and --minutes exclude each other/,
  },
  {
    name: "an unknown precision",
    make: () => [...train, "--precision", "fp4"],
    says: /"fp4" is not one of f32, bf16/,
  },
  { name: "no thread", make: () => [...train, "--threads", "0"], says: /--threads "0"/ },
  {
    name: "more threads than can be",
    make: () => [...train, "--threads", "1000000"],
    says: /--threads "1000000" is not a whole number from 1 to 1024/,
  },
  { name: "nothing to train on", make: () => ["train"], says: /nothing to train on[\s\S]*--data PATH/ },
  { name: "--resume without its run", make: () => ["train", "--resume"], says: /--resume needs the run/ },
  {
    name: "a flag that --resume would have to ignore",
    make: async ({ copyRun }) => ["train", "--run", await copyRun(), "--resume", "--seed", "3"],
    says: /--seed cannot be given with --resume/,
  },
  {
    name: "a setting that a run cannot change",
    make: async ({ copyRun }) => ["train", "--run", await copyRun(), "--resume", "--set", "rowLength=16"],
    says: /rowLength cannot change in a run that goes on/,
  },
  {
    name: "a probability above one",
    make: async ({ copyRun }) => ["generate", await copyRun(), "--top-p", "2"],
    says: /--top-p "2" is not a number from 0 to 1/,
  },
  {
    name: "a negative temperature",
    make: async ({ copyRun }) => ["generate", await copyRun(), "--temperature", "-1"],
    says: /--temperature/,
  },
  {
    name: "a stop text that is empty",
    make: async ({ copyRun }) => ["generate", await copyRun(), "--stop", ""],
    says: /stop text is empty/,
  },
  {
    name: "a token that is no id",
    make: () => ["tokenizer", "decode", "12", "x"],
    says: /"x" is no token id/,
  },
  {
    name: "an id that is empty",
    make: () => ["tokenizer", "decode", ""],
    says: /"" is no token id/,
  },
  {
    name: "an id beyond the vocabulary",
    make: () => ["tokenizer", "decode", "99999"],
    says: /99999/,
  },
  {
    name: "a model to plan that is misspelt",
    make: () => ["plan", "--model", "v3-617b"],
    says: /"v3-617b"[\s\S]*--model v3-671b/,
  },
  {
    name: "a cluster that nobody knows",
    make: () => ["plan", "--cluster", "h900x8"],
    says: /no cluster "h900x8"[\s\S]*h800x2048/,
  },
  {
    name: "a cluster's file that is not there",
    make: () => ["plan", "--cluster", "lab.json"],
    says: /lab\.json cannot be read/,
  },
  {
    name: "a cluster's file with a misspelt key",
    make: async ({ folder }) => {
      await writeFile(join(folder, "lab.json"), '{ "name": "lab", "nods": 2 }');
      return ["plan", "--cluster", "lab.json"];
    },
    says: /nods[\s\S]*nodes/,
  },
  {
    name: "a layout with a part that there is not",
    make: () => ["plan", "--layout", "tp=8"],
    says: /"tp" is no part of a layout/,
  },
  {
    name: "a layout that leaves devices over",
    make: () => ["plan", "--layout", "pp=15"],
    says: /2040, the cluster h800x2048 has 2048 devices[\s\S]*pp=16,dp=128/,
  },
  {
    name: "an expert group that no layout can have",
    make: () => ["plan", "--layout", "pp=16,ep=3"],
    says: /ep 3 does not divide dp 128/,
  },
  {
    name: "too few rows for DualPipe",
    make: () => ["plan", "--batch-rows", "128"],
    says: /dualpipe needs 32 micro-batches for pp 16, there are 1/,
  },
  {
    name: "a plan's page below a folder that is not there",
    make: () => ["plan", "--html", "nowhere/plan.html"],
    says: /cannot write the plan: nowhere\/plan\.html/,
  },
  {
    name: "loads of experts for a training plan",
    make: () => ["plan", "--loads", "text.txt"],
    says: /--loads has no effect without --serving/,
  },
  {
    name: "loads of experts that are no numbers",
    make: () => ["plan", "--serving", "--loads", "text.txt"],
    says: /text\.txt is not JSON/,
  },
];
