/** `minke convert` as a user meets it: a trained run goes to FP8 and back, is looked at, and writes. */
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadModel } from "../../src/index.ts";
import { minke, type Outcome } from "../support/minke.ts";
import { nativeIsMissing } from "../support/native.ts";
import { writeTrainingText } from "../support/trainingText.ts";

let folder: string;
let trained: Promise<void> | undefined;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "minke-convert-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Trains `run` by the first test that asks, and then runs minke beside it. */
async function inFolder(args: readonly string[]): Promise<Outcome> {
  trained ??= train();
  await trained;
  return minke(args, { cwd: folder });
}

async function train(): Promise<void> {
  await writeTrainingText(folder, 100);
  const rows = ["batchRows=1", "microBatchRows=1", "evaluate.lastRows=1", "checkpoint.everySteps=0"];
  const settings = ["data.tokenizer=bytes", ...rows].flatMap((setting) => ["--set", setting]);
  const fixed = ["--preset", "unit", "--precision", "bf16", "--steps", "2", "--run", "run"];
  const { code, stderr } = await minke(["train", "--data", "text.txt", ...fixed, ...settings], {
    cwd: folder,
  });
  expect({ code, stderr }).toMatchObject({ code: 0 });
}

async function done(...args: string[]): Promise<Outcome> {
  const outcome = await inFolder(args);
  expect(outcome).toMatchObject({ code: 0, stderr: "" });
  return outcome;
}

const backend = nativeIsMissing ? ["--backend", "reference"] : [];
const greedy = ["--prompt", "The whale", "--max-tokens", "8", "--temperature", "0", ...backend];

describe("minke convert", () => {
  test("writes a run's model in FP8: half the bytes of its linears, and it still writes", async () => {
    const { stdout } = await done("convert", "run", "fp8", "--dtype", "fp8");
    expect(stdout).toMatch(
      /^fp8: \d+ KiB, \d+ KiB before; weights: 72 quantised to FP8, \d+ copied as they were; /,
    );
    expect(await readdir(join(folder, "fp8"))).toEqual(
      expect.arrayContaining(["tokenizer.json", "config.json"]),
    );
    expect(await readdir(join(folder, "fp8"))).not.toEqual(expect.arrayContaining(["state.json"]));
    const shown = (await done("inspect", "fp8")).stdout;
    expect(shown).toMatch(/numbers BF16, [\d.]+k F8_E4M3 with 72 F32 scales, \d+ F32\n/);
    expect(shown).toMatch(/F8_E4M3 \[24, 32\] +model\.layers\.0\.self_attn\.q_a_proj\.weight\n/);
    expect((await done("generate", "fp8", ...greedy)).stdout).toMatch(/^The whale/);
  });

  test("and back: --json tells what was done, and the text is that of the FP8 model", async () => {
    await done("convert", "run", "there", "--dtype", "fp8", "--scales", "power-of-two", "--json");
    const args = ["convert", "there", "back", "--dtype", "bf16", "--shard-size", "40KB", "--json"];
    const found = JSON.parse((await done(...args)).stdout) as Record<string, unknown>;
    expect(found).toMatchObject({ from: "there", to: "back", format: "bf16", dequantized: 72, quantized: 0 });
    expect(await readdir(join(folder, "back"))).toContain("model.safetensors.index.json");
    const inspected = JSON.parse((await done("inspect", "there", "--json")).stdout) as Record<
      string,
      unknown
    >;
    expect(inspected).toMatchObject({
      config: { quantizationConfig: { scaleFmt: "ue8m0" } },
      scales: { dtype: "F32", tensors: 72 },
    });
    // FP8 weights are multiplied as the bf16 that they stand for; powers of two lose nothing on the way there.
    const texts = [await done("generate", "there", ...greedy), await done("generate", "back", ...greedy)];
    expect(texts[1]).toEqual(texts[0]);
  });

  test("FP8 weights write when they are multiplied in FP8, in bf16 and in f32", async () => {
    await done("convert", "run", "loaded", "--dtype", "fp8");
    for (const precision of ["fp8", "bf16", "f32"] as const) {
      const options = nativeIsMissing ? ({ backend: "reference" } as const) : {};
      const model = await loadModel(join(folder, "loaded"), { precision, ...options });
      let pieces = 0;
      for await (const _ of model.generate("The whale", { maxTokens: 8, temperature: 0 })) pieces++;
      await model.dispose();
      expect(pieces, precision).toBeGreaterThan(0);
    }
  });

  test.each([
    [["convert", "run", "run", "--dtype", "fp8"], /run exists already/],
    [["convert", "run", "out"], /required option '--dtype <name>' not specified/],
    [["convert", "run", "out", "--dtype", "int8"], /--dtype "int8" is not one of f32, bf16, fp8/],
    [["convert", "run", "out", "--dtype", "fp8", "--scales", "ue8m0"], /--scales "ue8m0" is not one of/],
    [["convert", "rum", "out", "--dtype", "fp8"], /rum does not exist/],
    [["convert", "run", "text.txt/out", "--dtype", "fp8"], /text\.txt\/out is in the way of a folder/],
  ])("minke %j is refused in three lines, and writes nothing", async (args, what) => {
    await inFolder(["--version"]);
    const before = (await readdir(folder)).sort();
    const { code, stdout, stderr } = await inFolder(args);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(what);
    expect(stderr).toMatch(/^minke: .*\n {2}why: .*\n {2}fix: .*\n$/);
    expect((await readdir(folder)).sort()).toEqual(before);
  });

  test("says what is wrong with FP8 weights, with the tensor's name", async () => {
    await done("convert", "run", "spoilt", "--dtype", "fp8");
    const path = join(folder, "spoilt", "model.safetensors");
    const bytes = await readFile(path);
    const header = bytes.toString("utf8", 8, 8 + Number(bytes.readBigUInt64LE(0)));
    const name = "model.layers.0.mlp.down_proj.weight_scale_inv";
    const { data_offsets: at } = (JSON.parse(header) as Record<string, { data_offsets: [number, number] }>)[
      name
    ]!;
    bytes.writeFloatLE(0, 8 + Number(bytes.readBigUInt64LE(0)) + at[0]);
    await writeFile(path, bytes);
    const { code, stderr } = await inFolder(["generate", "spoilt", ...greedy]);
    expect(code).toBe(1);
    expect(stderr).toContain(`minke: ${name} is 0 at [0, 0]\n  why: `);
  });
});
