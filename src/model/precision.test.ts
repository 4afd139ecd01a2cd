import { describe, expect, test } from "vitest";
import { makeSession, midway, randomRows, tinyTrainConfig } from "../../test/support/tinyTraining.ts";
import {
  type Dtype,
  type Fp8Recipe,
  type Operand,
  type Param,
  PlanBackend,
  QueueDevice,
  reportRecipe,
} from "../tensor/index.ts";
import type { Kernel } from "../tensor/kernel.ts";
import { fp8Precision, precisions } from "./precision.ts";

interface Noted {
  readonly name: string;
  readonly label: string;
  readonly dtypes: Readonly<Record<string, Dtype | null>>;
  readonly params: Readonly<Record<string, Param>>;
}

/** Computes nothing and notes what it is asked for. */
class NotingBackend extends PlanBackend {
  readonly noted: Noted[] = [];

  override enqueue(
    kernel: Kernel,
    operands: readonly (Operand | null)[],
    params: readonly Param[],
    label: string = "",
  ): void {
    const dtypes = kernel.operands.map(({ name }, i) => [name, operands[i]?.dtype ?? null] as const);
    const named = kernel.params.map((name, i) => [name, params[i]!] as const);
    this.noted.push({
      name: kernel.name,
      label,
      dtypes: Object.fromEntries(dtypes),
      params: Object.fromEntries(named),
    });
  }
}

/** What a training step asks for, forward, backward and update. */
async function stepOf(fp8: Partial<Fp8Recipe> = {}): Promise<readonly Noted[]> {
  const backend = new NotingBackend();
  const config = tinyTrainConfig({ precision: "fp8", fp8: { ...reportRecipe, ...fp8 }, microBatchRows: 4 });
  const session = makeSession(config, new QueueDevice(backend, 2 ** 40));
  backend.noted.length = 0;
  await session.runner.compute(randomRows(4, config, 1), midway(config));
  session.runner.commit(midway(config));
  return backend.noted;
}

const part = (label: string): string =>
  label.replace(/^model\.(layers\.\d+\.)?/, "").replace(/\.weight$/, "");
const parts = (noted: readonly Noted[], ...names: string[]): string[] =>
  [...new Set(noted.filter(({ name }) => names.includes(name)).map(({ label }) => part(label)))].sort();

const layerProjections = [
  "mlp.downProj",
  "mlp.gateUpProj",
  "mlp.sharedExperts.downProj",
  "mlp.sharedExperts.gateUpProj",
  "selfAttn.kvAProjWithMqa",
  "selfAttn.kvBProj",
  "selfAttn.oProj",
  "selfAttn.qAProj",
  "selfAttn.qBProj",
];
const experts = ["mlp.experts.downProj", "mlp.experts.gateUpProj"];

describe("a step in fp8", () => {
  test("multiplies all projections of the layers in E4M3, forward and both ways back, and nothing else", async () => {
    const noted = await stepOf();
    expect(parts(noted, "fp8Matmul")).toEqual(layerProjections);
    expect(parts(noted, "fp8GradWeight")).toEqual(layerProjections);
    expect(parts(noted, "fp8GroupedMatmul")).toEqual(experts);
    expect(parts(noted, "fp8GroupedGradWeight")).toEqual(experts);
    for (const { name, label, dtypes, params } of noted.filter((one) => one.name.startsWith("fp8"))) {
      expect([dtypes["x"], dtypes["xScales"]], `${name} of ${label}`).toEqual(["f8e4m3", "f32"]);
      expect(dtypes["dw"] ?? dtypes["y"], `${name} of ${label}`).toBe("dw" in dtypes ? "f32" : "bf16");
      expect([params["promotion"], params["accumulatorBits"]]).toEqual([128, 0]);
    }
  });

  test("leaves router, head and MTP's join as they are", async () => {
    const noted = await stepOf();
    expect(parts(noted, "matmul", "matmulGradWeight")).toEqual(["ehProj", "mlp.gate"]);
    expect(parts(noted, "groupedMatmul", "groupedMatmulGradWeight")).toEqual([]);
    const panels = (name: string, label: RegExp): Set<unknown> =>
      new Set(
        noted
          .filter((one) => one.name === name && label.test(one.label))
          .map(({ dtypes }) => dtypes["panels"]),
      );
    expect(panels("matmul", /gate/)).toEqual(new Set(["f32"]));
    expect(panels("matmul", /ehProj/)).toEqual(new Set(["bf16"]));
    expect(panels("linearCrossEntropy", /./)).toEqual(new Set(["bf16"]));
    const attention = noted.filter(({ name }) => name === "attention" || name === "combine");
    for (const { dtypes } of attention) expect(dtypes["o"] ?? dtypes["y"]).toBe("bf16");
  });

  test("keeps attention's output in E5M6, SwiGLU's input in E4M3, and makes SwiGLU's output again", async () => {
    const noted = await stepOf();
    const of = (name: string): Noted[] => noted.filter((one) => one.name === name);
    const codes = (name: string, dtype: Dtype): number =>
      of(name).filter(({ dtypes }) => dtypes["codes"] === dtype).length;
    // Three layers: a dense one, one of experts, MTP's; the latter two have shared experts besides.
    const [layers, swiglus] = [3, 5];
    expect([codes("quantizeTiles", "e5m6"), codes("dequantizeTiles", "e5m6")]).toEqual([layers, layers]);
    expect(codes("dequantizeTiles", "f8e4m3")).toBe(swiglus);
    expect(of("swiglu")).toHaveLength(2 * swiglus);
    for (const { dtypes } of of("quantizeTiles").filter((one) => one.dtypes["codes"] === "e5m6"))
      expect(dtypes["x"]).toBe("bf16");
  });

  test("writes each weight's codes once, after its update, with f32 scales", async () => {
    const noted = await stepOf();
    const last = noted.findLastIndex(({ name }) => name.startsWith("fp8"));
    const written = noted
      .map(({ name }, i) => [name, i] as const)
      .filter(([name]) => name === "quantizeWeight");
    // MLA's five in each of three layers, two of a dense layer, four of each of two with experts.
    expect(written).toHaveLength(3 * 5 + 2 + 2 * 4);
    for (const [, i] of written) {
      expect(i).toBeGreaterThan(last);
      expect(noted[i - 1]!.name).toBe("adamw");
    }
  });

  test("takes every ablation from the recipe", async () => {
    const noted = await stepOf({
      scaling: "tensor",
      gradientTile: "128x128",
      promotion: 32,
      accumulatorBits: 14,
      powerOfTwo: "all",
    });
    const of = (name: string): Noted[] => noted.filter((one) => one.name === name);
    for (const { params } of noted.filter(({ name }) => name.startsWith("fp8")))
      expect([params["promotion"], params["accumulatorBits"]]).toEqual([32, 14]);
    for (const name of ["quantizeTiles", "quantizeColumns", "quantizeWeight"])
      for (const { params, dtypes } of of(name))
        expect([params["powerOfTwo"], dtypes["amax"]]).toEqual([1, "f32"]);
    const widths = new Set(
      of("quantizeTiles").map(({ params }) => `${params["floor"]} ${params["rowsPerTile"]}`),
    );
    expect(widths).toEqual(new Set(["0.0001 1", "0 128"]));
    expect(new Set(of("quantizeColumns").map(({ params }) => params["columnsPerTile"]))).toEqual(
      new Set([1, 128]),
    );
  });
});

describe("the fp8 column of the precision map", () => {
  const { fp8, held } = precisions.fp8;

  test("has powers of two where codes travel or are cut anew: W_O's input, both sides of the dispatch", () => {
    const named = Object.entries(fp8!).map(([name, { input, gradient, weight }]) => {
      return [name, input.powerOfTwo, gradient.powerOfTwo, weight.powerOfTwo];
    });
    expect(named).toEqual([
      ["attention", false, false, false],
      ["attentionOutput", true, false, false],
      ["feedForward", false, false, false],
      ["feedForwardOutput", false, false, false],
      ["experts", true, false, false],
      ["expertsOutput", false, true, false],
    ]);
    expect(held.attentionOutput).toMatchObject({ dtype: "e5m6", powerOfTwo: true });
    expect(held.swigluInput).toMatchObject({ dtype: "f8e4m3", powerOfTwo: false });
  });

  test("has a least scale for activations and none for gradients", () => {
    for (const { input, gradient } of Object.values(fp8!))
      expect([input.floor, gradient.floor]).toEqual([1e-4, 0]);
  });

  test("differs from bf16 in nothing but what it says", () => {
    const { fp8: _formats, held: _held, recompute, name, ...rest } = precisions.fp8;
    expect([name, recompute]).toEqual(["fp8", "always"]);
    expect(precisions.bf16).toEqual({
      ...rest,
      name: "bf16",
      fp8: null,
      held: { attentionOutput: null, swigluInput: null },
      recompute: "on request",
    });
    expect(fp8Precision({ ...reportRecipe, powerOfTwo: "none" }).held.attentionOutput?.powerOfTwo).toBe(
      false,
    );
  });
});
