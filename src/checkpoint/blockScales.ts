/**
 * The scales of FP8 weights: `NAME_scale_inv` beside `NAME`, [ceil(N / 128), ceil(K / 128)], a factor despite its name.
 *
 * Files of strangers are read here: a scale may be missing, of another shape, zero or NaN, and codes may be NaN. Each
 * of these would make a model that runs and is wrong, so each is refused by name.
 *
 * Source: README_WEIGHTS.md of DeepSeek-V3; DeepSeek-V3 report, section 3.3.2.
 */
import { CheckpointError } from "../base/index.ts";
import { type Shape, TILE, tilesOf } from "../tensor/index.ts";
import { widen } from "./numbers.ts";
import type { DiskDtype, SafetensorsFile, TensorEntry } from "./safetensors.ts";

/** A tensor, and the file that it lies in. */
export interface Placed {
  readonly file: SafetensorsFile;
  readonly entry: TensorEntry;
}

export interface StoredWeight extends Placed {
  /** Of FP8 codes: one factor per block. It may lie in another shard than they do. */
  readonly scale: Placed | null;
}

const SUFFIX = "_scale_inv";

/** DeepSeek stores f32, for powers of two as well; others store those as bytes that are exponents. */
const SCALE_DTYPES: readonly DiskDtype[] = ["F32", "F8_E8M0", "U8"];

/** Times 448, the greatest code, this is the greatest f32. */
const GREATEST_SCALE = 3.4028234663852886e38 / 448;

export function scaleName(weight: string): string {
  return `${weight}${SUFFIX}`;
}

/** The scales of a matrix of this shape. */
export function scaleShape([N, K]: Shape): Shape {
  return [tilesOf(N!), tilesOf(K!)];
}

/**
 * The weights among the tensors of a folder, each FP8 matrix with its scale.
 *
 * @throws {CheckpointError} if codes have no scale, a scale no codes, or the two do not fit
 */
export function pairScales(tensors: ReadonlyMap<string, Placed>): ReadonlyMap<string, StoredWeight> {
  const weights = new Map<string, StoredWeight>();
  for (const [name, placed] of tensors) {
    if (name.endsWith(SUFFIX)) requireCodes(name, tensors);
    else if (placed.entry.dtype !== "F8_E4M3") weights.set(name, { ...placed, scale: null });
    else weights.set(name, { ...placed, scale: scaleOf(placed, tensors.get(scaleName(name))) });
  }
  return weights;
}

function requireCodes(name: string, tensors: ReadonlyMap<string, Placed>): void {
  const weight = name.slice(0, -SUFFIX.length);
  const dtype = tensors.get(weight)?.entry.dtype;
  if (dtype === "F8_E4M3") return;
  throw unfit(
    name,
    dtype === undefined ? "has no weight beside it" : `belongs to a weight that is ${dtype}`,
    {
      why: `a scale multiplies the F8_E4M3 codes of ${weight}; without them it says that something was left out`,
      fix: "copy the whole folder again, or convert it again from where it came",
    },
  );
}

function scaleOf({ entry }: Placed, scale: Placed | undefined): Placed {
  const { name, shape } = entry;
  if (shape.length !== 2) {
    throw unfit(name, `is F8_E4M3 of shape [${shape.join(", ")}]`, {
      why: "only a matrix has blocks of 128 x 128, each with a scale",
      fix: "store it in BF16 or F32",
    });
  }
  const wanted = scaleShape(shape);
  if (scale === undefined) {
    throw unfit(name, `is F8_E4M3 without ${scaleName(name)}`, {
      why: `codes mean nothing without their scales, of shape [${wanted.join(", ")}]`,
      fix: "copy the whole folder again; the scale may lie in another shard than the weight",
    });
  }
  if (!SCALE_DTYPES.includes(scale.entry.dtype)) {
    throw unfit(scaleName(name), `is ${scale.entry.dtype}`, {
      why: `scales are read from ${SCALE_DTYPES.join(", ")}`,
      fix: "store the scales in F32",
    });
  }
  const found = scale.entry.shape;
  if (found.length === 2 && found.every((dim, i) => dim === wanted[i])) return scale;
  throw unfit(scaleName(name), `is [${found.join(", ")}], its weight wants [${wanted.join(", ")}]`, {
    why: `the weight is [${shape.join(", ")}] and a scale belongs to each block of ${TILE} x ${TILE}, short ones at the edges too`,
    fix: "quantise the weight again in blocks of 128 x 128; other sizes are not read",
  });
}

/**
 * The scales of a weight as f32.
 *
 * @throws {CheckpointError} naming the first that no weight can be multiplied by
 */
export async function readScales({ file, entry }: Placed): Promise<Float32Array> {
  const bytes = await file.read(entry);
  const scales = entry.dtype === "F32" ? widen(bytes, "F32") : Float32Array.from(bytes, exponentToNumber);
  const bad = scales.findIndex((scale) => !(scale > 0 && scale <= GREATEST_SCALE));
  if (bad < 0) return scales;
  const columns = entry.shape[1]!;
  const at = `[${Math.floor(bad / columns)}, ${bad % columns}]`;
  throw unfit(entry.name, `is ${scales[bad]} at ${at}`, {
    why: "a weight is its code times its block's scale: that must be a finite number above zero, a block of zeros has 1",
    fix: "the file is damaged or was quantised wrongly: copy it again, or quantise again from BF16 weights",
  });
}

/** E8M0: all eight bits are an exponent, 255 is NaN. */
function exponentToNumber(byte: number): number {
  return byte === 255 ? Number.NaN : 2 ** (byte - 127);
}

/** @throws {CheckpointError} naming the first code that is NaN; `start` is the element of the weight at which `codes` begin */
export function requireNumbers({ name, shape }: TensorEntry, codes: Uint8Array, start: number): void {
  let bad = 0;
  // A loop: a function per code would take longer than all else that is done to it.
  while (bad < codes.length && (codes[bad]! & 0x7f) !== 0x7f) bad++;
  if (bad === codes.length) return;
  const [at, K] = [start + bad, shape[1]!];
  throw unfit(name, `holds NaN at [${Math.floor(at / K)}, ${at % K}]`, {
    why: "one weight that is not a number makes every answer of the model NaN",
    fix: "the weights were NaN before they were quantised, or the file is damaged: use an earlier checkpoint",
  });
}

function unfit(
  key: string,
  what: string,
  detail: { readonly why: string; readonly fix: string },
): CheckpointError {
  return new CheckpointError(`${key} ${what}`, { ...detail, fields: { key } });
}
