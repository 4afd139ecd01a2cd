/**
 * ModelConfig from and to `config.json`.
 *
 * Readers disagree about spellings (rope_scaling or rope_parameters, torch_dtype or dtype): all are accepted,
 * and what is written can be read by all of them.
 */
import { ConfigError, renameKeys, toCamelCase, toSnakeCase } from "../base/index.ts";
import type { ModelConfig } from "./config.ts";
import { parseModelConfig } from "./configSchema.ts";

/** From the JSON of a `config.json`; accepts the spellings that different writers use (interop 1.2). */
export function modelConfigFromJson(json: unknown, where: string): ModelConfig {
  const camel = renameKeys(json as never, toCamelCase) as Record<string, unknown>;
  const { ropeParameters, ropeScaling, dtype, numMtpLayers, numLocalExperts, quantizationConfig, ...rest } =
    camel;
  const rope = (ropeParameters ?? ropeScaling ?? null) as Record<string, unknown> | null;
  const value: Record<string, unknown> = { ...rest };
  if (dtype !== undefined) value["torchDtype"] = dtype;
  if (numMtpLayers !== undefined) value["numNextnPredictLayers"] ??= numMtpLayers;
  if (numLocalExperts !== undefined) value["nRoutedExperts"] ??= numLocalExperts;
  delete value["qkHeadDim"];
  if (quantizationConfig != null) value["quantizationConfig"] = withoutModules(quantizationConfig);
  if (rope !== null) {
    const { ropeTheta, ropeType, type, ...scaling } = rope;
    if (ropeTheta !== undefined) value["ropeTheta"] = ropeTheta;
    const kind = ropeType ?? type ?? "default";
    if (kind !== "default") {
      const original = scaling["originalMaxPositionEmbeddings"] ?? value["maxPositionEmbeddings"];
      value["ropeScaling"] = withoutFalsy({
        ...scaling,
        originalMaxPositionEmbeddings: original,
        type: kind,
      });
    }
  }
  try {
    return parseModelConfig(value, where);
  } catch (error) {
    throw error instanceof ConfigError ? inFileSpelling(error, where) : error;
  }
}

/** The same error about the keys as config.json spells them: `n_group` is what its reader has to change. */
function inFileSpelling(error: ConfigError, where: string): ConfigError {
  const respell = (text: string): string => text.replaceAll(/\b[a-z]+(?:[A-Z][a-z0-9]*)+\b/g, toSnakeCase);
  const { what, why, fix, fields } = error;
  const spelt = what.startsWith(where) ? where + respell(what.slice(where.length)) : respell(what);
  return new ConfigError(spelt, { why: respell(why), fix: respell(fix), fields, cause: error });
}

/** The JSON of a `config.json` that every reader understands (interop 1.2). */
export function modelConfigToJson(config: ModelConfig): Record<string, unknown> {
  const json = renameKeys(config as never, toSnakeCase) as Record<string, unknown>;
  const yarn = json["rope_scaling"] as Record<string, unknown> | null;
  if (yarn !== null) json["rope_scaling"] = { ...yarn, rope_type: yarn["type"] };
  json["num_key_value_heads"] = config.numAttentionHeads;
  if (config.quantizationConfig === null) delete json["quantization_config"];
  return json;
}

/** Which tensors are FP8 is told by the tensors themselves; transformers repeats it, and how it would load them. */
function withoutModules(quantization: object): Record<string, unknown> {
  const told = new Set(["modulesToNotConvert", "modulesToConvert", "ignoredLayers", "dequantize"]);
  return Object.fromEntries(Object.entries(quantization).filter(([key]) => !told.has(key)));
}

/** Some writers give `false` or null for a number that is not there. */
function withoutFalsy(record: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(record).filter(([, value]) => value !== null && value !== false));
}
