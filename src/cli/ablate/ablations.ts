/** The paper's questions at small scale: named sets of arms, an arm being settings on top of the same run. Pure. */
import { UsageError } from "../../base/index.ts";
import { type ModelConfig, trainingFlopsPerToken } from "../../model/index.ts";

export interface Arm {
  readonly name: string;
  /** As for `--set`; none is the preset's recipe. */
  readonly settings: readonly string[];
}

export interface Ablation {
  readonly name: AblationName;
  readonly question: string;
  /** The first is what the others are compared with. */
  readonly arms: readonly Arm[];
}

export const ABLATIONS = ["mtp", "balance", "moe", "optimizer", "fp8"] as const;
/** FP8's arms ask how to compute, not what, and two of them emulate sums in plain code, slowly: only if it is named. */
const BY_DEFAULT: readonly AblationName[] = ["mtp", "balance", "moe", "optimizer"];
export type AblationName = (typeof ABLATIONS)[number];

/**
 * Weight of the balance loss where it balances alone: large enough to do so, as in models before V3.
 *
 * Source: Wang et al., "Auxiliary-loss-free load balancing strategy for mixture-of-experts" (2024), section 2: 0.01 of
 * GShard and Switch costs quality, 0.001 balances poorly.
 */
const BALANCE_LOSS = 0.003;

/** @param rowLength  tokens in a row, which attention's share of the FLOPs depends on */
export function planAblation(name: AblationName, model: ModelConfig, rowLength: number): Ablation {
  switch (name) {
    case "mtp":
      return {
        name,
        question: "does predicting the next but one token help the next one? (report, table 4)",
        arms: [
          { name: "MTP depth 1", settings: ["model.numNextnPredictLayers=1"] },
          { name: "no MTP", settings: ["model.numNextnPredictLayers=0"] },
        ],
      };
    case "balance":
      return {
        name,
        question: "what does it cost to balance the experts, and what not to? (report, table 5)",
        arms: [
          { name: "router bias", settings: [] },
          {
            name: "sequence balance loss only",
            settings: ["balance.gamma=0", `balance.alpha=${BALANCE_LOSS}`],
          },
          { name: "none", settings: ["balance.gamma=0", "balance.alpha=0"] },
        ],
      };
    case "moe":
      return {
        name,
        question: "do experts beat one dense layer of the same FLOPs per token? (DeepSeekMoE)",
        arms: [
          { name: "experts", settings: ["model.numNextnPredictLayers=0"] },
          { name: "dense, equal FLOPs", settings: settingsOf(denseTwin(model, rowLength)) },
        ],
      };
    case "optimizer":
      return {
        name,
        question: "AdamW or Muon, at the same learning rate and decay? (Moonlight)",
        arms: [
          { name: "AdamW", settings: ["optimizer.kind=adamw"] },
          { name: "Muon", settings: ["optimizer.kind=muon"] },
        ],
      };
    case "fp8":
      return {
        name,
        question:
          "what does FP8 cost, and what does each part of its recipe save? (report, 3.3 and appendix B)",
        arms: [
          { name: "bf16", settings: ["precision=bf16", MOMENTS] },
          { name: "FP8", settings: inFp8() },
          { name: "FP8, one scale a tensor", settings: inFp8("scaling=tensor") },
          { name: "FP8, gradients in 128x128 blocks", settings: inFp8("gradientTile=128x128") },
          { name: "FP8, 14-bit sums", settings: inFp8("accumulatorBits=14") },
          {
            name: "FP8, 14-bit sums, no promotion",
            settings: inFp8("accumulatorBits=14", "promotion=0"),
          },
        ],
      };
  }
}

/** Of all of FP8's arms, bf16's too: only the products differ. */
const MOMENTS = "optimizer.moments=bf16";

function inFp8(...settings: readonly string[]): readonly string[] {
  return ["precision=fp8", MOMENTS, ...settings.map((setting) => `fp8.${setting}`)];
}

type DenseTwin = Pick<ModelConfig, "numNextnPredictLayers" | "firstKDenseReplace" | "intermediateSize">;

/** What makes all layers dense and as wide as the experts' FLOPs allow; without MTP, both. */
export function denseTwin(model: ModelConfig, rowLength: number): DenseTwin {
  const flops = (intermediateSize: number, firstKDenseReplace: number): number =>
    trainingFlopsPerToken(
      { ...model, intermediateSize, firstKDenseReplace, numNextnPredictLayers: 0 },
      rowLength,
    ).total;
  const wanted = flops(model.intermediateSize, model.firstKDenseReplace);
  const layers = model.numHiddenLayers;
  // FLOPs grow by the same amount with every unit of width.
  const [one, two] = [flops(1, layers), flops(2, layers)];
  const width = Math.max(1, Math.round(1 + (wanted - one) / (two - one)));
  return { numNextnPredictLayers: 0, firstKDenseReplace: layers, intermediateSize: width };
}

function settingsOf(model: Partial<ModelConfig>): readonly string[] {
  return Object.entries(model).map(([key, value]) => `model.${key}=${value}`);
}

/**
 * @param text  names with commas between them; undefined takes all but FP8's
 * @throws      {UsageError} naming what there is
 */
export function chosenAblations(text: string | undefined): readonly AblationName[] {
  if (text === undefined) return BY_DEFAULT;
  return text.split(",").map((word) => {
    const found = ABLATIONS.find((name) => name === word.trim());
    if (found !== undefined) return found;
    throw new UsageError(`${text}: there is no ablation ${JSON.stringify(word)}`, {
      why: `the ablations are ${ABLATIONS.join(", ")}`,
      fix: `write for example minke ablate ${ABLATIONS[0]} ${ABLATIONS[1]}`,
      fields: { names: text },
    });
  });
}
