/**
 * Every error Minke throws on purpose: what happened, why that is a rule, and what to type next.
 *
 * `code` is stable across versions, messages are not. Operands are fields, so that tests and
 * programs read fields and never parse text. docs/errors.md is generated from the catalogue below.
 */

/** What an error says besides its first line. */
export interface ErrorDetail {
  readonly why: string;
  readonly fix: string;
  /** The operands: shapes, keys, paths, limits. */
  readonly fields?: Readonly<Record<string, unknown>>;
  readonly cause?: unknown;
}

export abstract class BaseError extends Error {
  abstract readonly code: `ERR_${string}`;
  readonly what: string;
  readonly why: string;
  readonly fix: string;
  readonly fields: Readonly<Record<string, unknown>>;

  constructor(what: string, detail: ErrorDetail) {
    super(`${what}\n  why: ${detail.why}\n  fix: ${detail.fix}`, { cause: detail.cause });
    this.name = new.target.name;
    this.what = what;
    this.why = detail.why;
    this.fix = detail.fix;
    this.fields = detail.fields ?? {};
    Object.defineProperty(this, brand, { value: true });
  }

  /** True for an error of this project, also when two copies of the package are loaded. */
  static isInstance(error: unknown): error is BaseError {
    return typeof error === "object" && error !== null && brand in error;
  }
}

const brand: unique symbol = Symbol.for("minke.BaseError") as never;

/** A tensor has a shape that the operation cannot take. */
export class ShapeError extends BaseError {
  readonly code = "ERR_SHAPE";
}
/** A tensor has a dtype that the operation cannot take. */
export class DtypeError extends BaseError {
  readonly code = "ERR_DTYPE";
}
/** The backend failed, or cannot be loaded. */
export class BackendError extends BaseError {
  readonly code = "ERR_BACKEND";
}
/** A tensor is used after its scope gave its memory back. */
export class ReleasedTensorError extends BaseError {
  readonly code = "ERR_RELEASED_TENSOR";
}
/** The arena has no room for a tensor. */
export class OutOfMemoryError extends BaseError {
  readonly code = "ERR_OUT_OF_MEMORY";
}
/** A setting is unknown, of the wrong kind, or impossible together with another. */
export class ConfigError extends BaseError {
  readonly code = "ERR_CONFIG";
}
/** The command line cannot be understood. */
export class UsageError extends BaseError {
  readonly code = "ERR_USAGE";
}
/** A document, folder or shard cannot be read as training data. */
export class DataError extends BaseError {
  readonly code = "ERR_DATA";
}
/** A checkpoint is missing, damaged, or does not fit the model. */
export class CheckpointError extends BaseError {
  readonly code = "ERR_CHECKPOINT";
}
/** A tokenizer file is damaged, or does not fit its use. */
export class TokenizerError extends BaseError {
  readonly code = "ERR_TOKENIZER";
}
/** A run folder is locked, read-only, or not a run folder. */
export class RunError extends BaseError {
  readonly code = "ERR_RUN";
}
/** The disk has no room for what is about to be written. */
export class DiskError extends BaseError {
  readonly code = "ERR_DISK";
}
/** A loss, gradient or weight is NaN or infinite. */
export class NonFiniteError extends BaseError {
  readonly code = "ERR_NON_FINITE";
}
/** A prompt and its answer do not fit the model's context. */
export class ContextLengthError extends BaseError {
  readonly code = "ERR_CONTEXT_LENGTH";
}

/** Holds what only a bug of ours could break; never for a user's mistake. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) {
    throw new Error(`${message}: this is a bug in minke; please report it with the line above`);
  }
}
