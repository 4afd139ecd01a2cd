/**
 * Minke's model against transformers' on PyTorch: every layer's output, every router choice, every gradient.
 *
 * In f64 on the reference backend the mathematics is held (1e-6 forward, 5e-6 gradients, relative Frobenius per
 * tensor); natively in f32 what users run (1e-5, 1e-4). Beside it, in both, every single element within the bounds
 * that the goldens' manifests name (test/golden/README.md, "Tolerances").
 */
import { afterAll, describe, expect, test } from "vitest";
import { type PrecisionName, updateRouterBias } from "../../src/model/index.ts";
import { add, fill, type QueueDevice, type Tensor } from "../../src/tensor/index.ts";
import {
  backward,
  byDiskName,
  type GoldenModel,
  gradOf,
  loadGoldenModel,
  readAll,
  readGoldens,
  readScalars,
} from "../support/goldenModel.ts";
import { makeOracleDevice } from "../support/gradient.ts";
import { makeNativeDevice, nativeIsMissing } from "../support/native.ts";
import { type Distance, distance, worstElement } from "../support/tolerance.ts";

const variants = [
  "a00-base",
  "a01-no-q-lora",
  "a02-no-groups",
  "a03-no-topk-norm",
  "a04-yarn",
  "a05-yarn-mscale",
  "a06-yarn-bare",
  "a07-yarn-step",
  "a08-block-eps",
  "a10-two-shared",
  "a14-dense",
  "a15-sixteen-experts",
  "a20-mtp-depth-2",
  "b00-fp8",
];

interface Setting {
  readonly name: string;
  readonly precision: PrecisionName;
  readonly device: QueueDevice;
  readonly forward: number;
  readonly gradient: number;
}

/** Per element: rtol |wanted| + atol; a gradient's atol is a share of the largest element of its tensor. */
const elementwise = {
  forward: { rtol: 1e-4, atol: 1e-5 },
  gradient: { rtol: 1e-3, atolOfLargest: 1e-6 },
};

const settings: Setting[] = [
  { name: "reference, f64", precision: "f64", device: makeOracleDevice(), forward: 1e-6, gradient: 5e-6 },
];
if (!nativeIsMissing) {
  const { device } = makeNativeDevice(undefined, 2);
  settings.push({ name: "native, f32", precision: "f32", device, forward: 1e-5, gradient: 1e-4 });
}

afterAll(async () => {
  for (const { device } of settings) await device.dispose();
});

describe.each(settings)("$name", ({ device, precision, forward, gradient }) => {
  test.each(variants)("%s: every layer's output, choice of experts and the logits", async (variant) => {
    const golden = await loadGoldenModel(device, variant, precision);
    const worst = await forwardErrors(golden);
    for (const [name, { frobenius, element }] of worst) {
      expect(frobenius, name).toBeLessThanOrEqual(forward);
      expect(element, `worst element of ${name}`).toBeLessThanOrEqual(1);
    }
    expect(worst.size).toBeGreaterThan(golden.config.numHiddenLayers);
  });

  test.each(variants.filter((variant) => readGoldens(variant, "gradients.main") !== null))(
    "%s: the loss and its gradient for every parameter",
    async (variant) => {
      const golden = await loadGoldenModel(device, variant, precision);
      const { main } = backward(golden, 0);
      const loss = (await readAll(main.loss)).reduce((a, b) => a + b, 0) / golden.counts.main;
      expect(loss / readScalars(variant)["loss_mean"]!).toBeCloseTo(1, 6);
      await expectGradients(golden, readGoldens(variant, "gradients.main")!, gradient);
    },
  );

  test.each([
    ["a00-base", "post_norm"],
    ["a00-base", "pre_norm"],
    ["a20-mtp-depth-2", "post_norm"],
    ["a20-mtp-depth-2", "pre_norm"],
  ] as const)("%s, %s: MTP losses and the gradients of main + 0.3 / D * MTP", async (variant, mtpHidden) => {
    const golden = await loadGoldenModel(device, variant, precision, mtpHidden);
    const { mtp } = backward(golden, 0.3);
    const scalars = readScalars(variant);
    for (const [k, { loss }] of mtp.entries()) {
      const mean = (await readAll(loss)).reduce((a, b) => a + b, 0) / golden.counts.mtp[k]!;
      expect(mean / scalars[`mtp.${mtpHidden}.${k + 1}.loss_mean`]!).toBeCloseTo(1, 6);
    }
    await expectGradients(golden, readGoldens(variant, `gradients.combined_${mtpHidden}`)!, gradient);
  });

  test("a00-base: the sequence-wise balance loss and its gradients", async () => {
    const golden = await loadGoldenModel(device, "a00-base", precision);
    const losses: Tensor[] = [];
    backward(golden, 0, (tape, { reports }) => {
      for (const { balanceLoss, router } of reports) {
        if (balanceLoss === null || router.bias.path.includes("layers.3")) continue; // layer 3 is MTP's
        const one = device.empty([1], balanceLoss.dtype);
        fill(one, 1);
        tape.seed(balanceLoss, one);
        losses.push(balanceLoss);
      }
    });
    const values = await Promise.all(losses.map(readAll));
    const total = values.reduce((sum, [value]) => sum + value!, 0);
    expect(total / readScalars("a00-base")["balance_unbiased"]!).toBeCloseTo(1, 6);
    await expectGradients(golden, readGoldens("a00-base", "gradients.balance_unbiased")!, gradient);
  });

  test("a00-base: the router bias moves by gamma towards the less loaded experts", async () => {
    const golden = await loadGoldenModel(device, "a00-base", precision);
    for (const layer of [1, 2]) {
      const load = golden.goldens.get(`layers.${layer}.tokens_per_expert`)!.values;
      const bias = golden.factory.buffers.find(({ path }) => path.startsWith(`model.layers.${layer}.`))!;
      updateRouterBias(bias, device.from(load, [load.length], "i32"), 0.001);
      const wanted = golden.goldens.get(`layers.${layer}.bias_next`)!.values;
      expect(distance(await readAll(bias.value), wanted).max).toBeLessThan(1e-6);
    }
  });
});

async function forwardErrors({
  device,
  model,
  batch,
  pass,
  goldens,
}: GoldenModel): Promise<Map<string, Distance & { element: number }>> {
  const errors = new Map<string, Distance & { element: number }>();
  const compare = async (name: string, tensor: Tensor): Promise<void> => {
    const wanted = goldens.get(name)?.values;
    if (wanted === undefined) return;
    const ours = await readAll(tensor);
    const element = worstElement(ours, wanted, elementwise.forward);
    errors.set(name, { ...distance(ours, wanted), element });
  };
  using _scope = device.scope();
  const { reports, normed } = model.forward(batch.ids, pass);
  // The layers once more, one at a time, to see what the whole model keeps to itself.
  const { embedding } = await import("../../src/tensor/index.ts");
  let stream: { residual: Tensor; update: Tensor | null } = {
    residual: embedding(batch.ids, model.embedTokens, pass.precision.residual, false),
    update: null,
  };
  await compare("emb", stream.residual);
  for (const [i, layer] of model.layers.entries()) {
    const output = layer.forward(stream, pass);
    stream = output.stream;
    await compare(`layers.${i}.layer_out`, add(stream.residual, stream.update!));
  }
  for (const { router, plan } of reports) {
    const layer = Number(/\d+/.exec(router.bias.path)?.[0]);
    const wanted = goldens.get(`layers.${layer}.topk_idx`);
    if (wanted !== undefined)
      expect(Array.from(await plan.expertIds.read())).toEqual(Array.from(wanted.values));
  }
  await compare("final_norm", normed);
  await compare("logits", model.logits(normed, pass));
  return errors;
}

async function expectGradients(
  golden: GoldenModel,
  wanted: ReadonlyMap<string, { values: ArrayLike<number> }>,
  tolerance: number,
): Promise<void> {
  const grads = await byDiskName(golden, (path) => gradOf(golden, path));
  const largest = Math.max(...[...wanted.values()].map(({ values }) => Math.sqrt(sumOfSquares(values))));
  let compared = 0;
  for (const [name, { values }] of wanted) {
    const ours = grads.get(name);
    if (ours === undefined) continue;
    compared++;
    // Experts without a token have gradients of exactly zero; there, nothing relative can be said.
    const norm = Math.sqrt(sumOfSquares(values));
    const apart = Math.sqrt(sumOfSquares(ours.map((value, i) => value - values[i]!)));
    expect(apart / Math.max(norm, 1e-3 * largest * tolerance), name).toBeLessThanOrEqual(tolerance);
    const { rtol, atolOfLargest } = elementwise.gradient;
    const bound = { rtol, atol: atolOfLargest * largestOf(values) };
    expect(worstElement(ours, values, bound), `worst element of ${name}`).toBeLessThanOrEqual(1);
  }
  const known = [...wanted.keys()].filter(
    (name) => !/embed_tokens|shared_head\.head/.test(name) || name.startsWith("model.embed"),
  );
  expect(compared).toBeGreaterThanOrEqual(Math.min(known.length, 10));
}

function largestOf(values: ArrayLike<number>): number {
  let largest = 0;
  for (let i = 0; i < values.length; i++) largest = Math.max(largest, Math.abs(values[i]!));
  return largest;
}

function sumOfSquares(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! ** 2;
  return sum;
}
