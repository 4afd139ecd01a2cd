/** Checkpoints and runs that were damaged, mixed up, or never were there. */
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { BadInput, Place } from "../../support/badInput.ts";
import {
  changeTensors,
  cutOff,
  type DiskContent,
  flipBit,
  poison,
  sealAgain,
} from "../../support/spoiltCheckpoint.ts";

/** The last checkpoint of the trained run. */
export const LAST = "checkpoints/step-6";
const SHARED = "model.layers.1.mlp.shared_experts.down_proj.weight";

/** Copies the run, spoils its last checkpoint, and lets it write. */
const generateFrom =
  (spoil: (checkpoint: string) => Promise<void>, ...more: string[]) =>
  async ({ folder, copyRun }: Place): Promise<string[]> => {
    const run = await copyRun();
    await spoil(join(folder, run, LAST));
    return ["generate", run, "--prompt", "The whale", ...more];
  };

/** Changes tensors behind the back of the hashes. */
const changed =
  (change: (tensors: Map<string, DiskContent>) => void) =>
  async (checkpoint: string): Promise<void> => {
    await changeTensors(join(checkpoint, "model.safetensors"), change);
    await sealAgain(checkpoint);
  };

const changeJson =
  (name: string, change: (value: Record<string, unknown>) => void) =>
  async (checkpoint: string): Promise<void> => {
    const path = join(checkpoint, name);
    const value = JSON.parse(await readFile(path, "utf8")) as Record<string, unknown>;
    change(value);
    await writeFile(path, JSON.stringify(value));
    await sealAgain(checkpoint);
  };

export const badCheckpoints: readonly BadInput[] = [
  {
    name: "weights that were cut off",
    make: generateFrom((checkpoint) => cutOff(join(checkpoint, "model.safetensors"))),
    says: /step-6 is damaged: model\.safetensors has \d+ bytes, \d+ were written/,
  },
  {
    name: "weights in which one bit has turned",
    make: generateFrom((checkpoint) => flipBit(join(checkpoint, "model.safetensors"))),
    says: /step-6 is damaged: model\.safetensors is not what was written/,
  },
  {
    name: "weights that were cut off, in a folder without hashes",
    make: generateFrom(async (checkpoint) => {
      await cutOff(join(checkpoint, "model.safetensors"));
      await rm(join(checkpoint, "manifest.json"));
    }),
    says: /model\.safetensors: holds \d+ bytes where its header describes \d+/,
  },
  {
    name: "a tensor that is missing",
    make: generateFrom(changed((tensors) => tensors.delete(SHARED))),
    says: /holds no model\.layers\.1\.mlp\.shared_experts\.down_proj\.weight/,
  },
  {
    name: "a tensor that no part of the model wants",
    make: generateFrom(
      changed((tensors) => tensors.set("model.layers.9.weight", { ...tensors.get(SHARED)! })),
    ),
    says: /no place for 1 tensors, the first is model\.layers\.9\.weight/,
  },
  {
    name: "a tensor of another shape",
    make: generateFrom(changed((tensors) => tensors.get(SHARED)!.shape.reverse())),
    says: /down_proj\.weight is \[16, 32\], the model wants \[32, 16\]/,
  },
  {
    name: "a weight that is NaN, to write with",
    make: generateFrom(changed((tensors) => poison(tensors, SHARED))),
    says: /not finite/,
  },
  {
    name: "a weight that is NaN, to train on from",
    make: async ({ folder, copyRun }) => {
      const run = await copyRun();
      await changed((tensors) => poison(tensors, SHARED))(join(folder, run, LAST));
      return ["train", "--run", run, "--resume", "--set", "steps=20"];
    },
    says: /step 9: non-finite loss, 3 steps in a row skipped\n.*model\.layers\.1\.mlp\.shared.*not finite/,
    mayWrite: /^run\/(events\.jsonl|report\.(md|html)|run\.json)$/,
  },
  {
    name: "a config.json that names an unknown setting",
    make: generateFrom(changeJson("config.json", (config) => (config["n_groups"] = 4))),
    says: /n_groups is not a known setting[\s\S]*n_group\n/,
  },
  {
    name: "a config.json that no model can have",
    make: generateFrom(changeJson("config.json", (config) => (config["n_group"] = 3))),
    says: /config\.json: n_group is 3\n/,
  },
  {
    name: "a tokenizer of a larger model",
    make: generateFrom(
      changeJson("tokenizer.json", (json) => {
        const added = json["added_tokens"] as Record<string, unknown>[];
        added.push(
          ...Array.from({ length: 300 }, (_, i) => ({ ...added[0], id: 1000 + i, content: `<extra ${i}>` })),
        );
      }),
    ),
    says: /tokenizer\.json has \d+ ids, the model 512/,
  },
  {
    name: "a tokenizer.json that is no JSON",
    make: generateFrom(async (checkpoint) => {
      await cutOff(join(checkpoint, "tokenizer.json"));
      await sealAgain(checkpoint);
    }),
    says: /tokenizer/i,
  },
  {
    name: "a model without its tokenizer",
    make: generateFrom(async (checkpoint) => {
      await rm(join(checkpoint, "tokenizer.json"));
      await sealAgain(checkpoint);
    }),
    says: /holds no tokenizer/,
  },
  {
    name: "an empty folder as a model",
    make: async ({ folder }) => {
      await mkdir(join(folder, "model"));
      return ["generate", "model"];
    },
    says: /model holds neither a run nor a model/,
  },
  {
    name: "a model that does not exist",
    make: async ({ copyRun }) => ["generate", `${await copyRun()}s`],
    says: /runs does not exist[\s\S]*did you mean run\?/,
  },
  {
    name: "a prompt longer than the context",
    make: generateFrom(async () => undefined, "--prompt", "so long ".repeat(20)),
    says: /a prompt of \d+ tokens cannot be continued\n.*context of 32/,
  },
  {
    name: "a folder that is no run, to resume",
    make: async ({ folder }) => {
      await mkdir(join(folder, "letters"));
      return ["train", "--run", "letters", "--resume"];
    },
    says: /letters is not a run folder/,
  },
  {
    name: "a run.json that was damaged",
    make: async ({ folder, copyRun }) => {
      const run = await copyRun();
      await cutOff(join(folder, run, "run.json"));
      return ["train", "--run", run, "--resume"];
    },
    says: /run\.json is not JSON/,
  },
  {
    name: "a log that was damaged in the middle",
    make: async ({ folder, copyRun }) => {
      const run = await copyRun();
      const path = join(folder, run, "events.jsonl");
      await writeFile(path, (await readFile(path, "utf8")).replace('"step.completed"', '"step.compl'));
      return ["train", "--run", run, "--resume"];
    },
    says: /events\.jsonl line \d+/,
  },
  {
    name: "optimizer state of other settings",
    make: async ({ folder, copyRun }) => {
      const run = await copyRun();
      const checkpoint = join(folder, run, LAST);
      await changeTensors(join(checkpoint, "optimizer.safetensors"), (tensors) => {
        tensors.delete([...tensors.keys()][0]!);
      });
      await sealAgain(checkpoint);
      return ["train", "--run", run, "--resume"];
    },
    says: /optimizer\.safetensors: moment\.m\..* does not fit this run/,
  },
  {
    name: "runs to compare of which one does not exist",
    make: async ({ copyRun }) => ["runs", "compare", await copyRun(), "rum", "--root", "."],
    says: /has no run "rum"/,
    mayWrite: /^index\.sqlite$/,
  },
];
