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

/**
 * A tensor has a shape that the operation cannot take.
 *
 * Thrown when the operation is enqueued, with the shapes and the parameter's path. In a config that Minke accepted it is
 * worth a report; in code of your own compare the shapes with the docstring of the operation.
 */
export class ShapeError extends BaseError {
  readonly code = "ERR_SHAPE";
}
/**
 * A tensor has a dtype that the operation cannot take.
 *
 * Convert with `to(...)` where the precision table allows it; f64 exists in the reference backend only.
 */
export class DtypeError extends BaseError {
  readonly code = "ERR_DTYPE";
}
/**
 * The backend failed, or cannot be loaded.
 *
 * `minke doctor` says which backend was chosen and why, tests the kernels, and names what to install.
 */
export class BackendError extends BaseError {
  readonly code = "ERR_BACKEND";
}
/**
 * A message between ranks was lost: a peer failed, left, never sent, or sent what nobody expected.
 *
 * Every rank ends with such an error when one fails. Look at the rank that it names first: its own error is the cause. If it
 * speaks of a time-out, the ranks did not do the same things: start all of them with the same arguments and data.
 */
export class CollectiveError extends BaseError {
  readonly code = "ERR_COLLECTIVE";
}
/**
 * A tensor is used after its scope gave its memory back.
 *
 * Return it from the scope with `scope.keep(tensor)`, or read its numbers before the scope ends.
 */
export class ReleasedTensorError extends BaseError {
  readonly code = "ERR_RELEASED_TENSOR";
}
/**
 * The arena has no room for a tensor.
 *
 * The message says how much was asked for and how much is in use. Fewer rows in a micro-batch, a shorter context or a
 * smaller preset need less; the estimate that is printed before a run names the largest parts.
 */
export class OutOfMemoryError extends BaseError {
  readonly code = "ERR_OUT_OF_MEMORY";
}
/**
 * A setting is unknown, of the wrong kind, or impossible together with another.
 *
 * Its fields name the source, the path of the key, the value found, and for an unknown key the nearest known one.
 * Nothing has been started or written when it is thrown.
 */
export class ConfigError extends BaseError {
  readonly code = "ERR_CONFIG";
}
/**
 * The command line cannot be understood.
 *
 * `minke COMMAND --help` shows the flags with examples.
 */
export class UsageError extends BaseError {
  readonly code = "ERR_USAGE";
}
/**
 * A document, folder or shard cannot be read as training data.
 *
 * The message names the file and the place in it. `minke data inspect` shows what Minke makes of a source.
 */
export class DataError extends BaseError {
  readonly code = "ERR_DATA";
}
/**
 * A checkpoint is missing, damaged, or does not fit the model.
 *
 * `minke inspect CHECKPOINT` verifies every hash and lists what is inside. A run goes on from the newest checkpoint that is
 * whole.
 */
export class CheckpointError extends BaseError {
  readonly code = "ERR_CHECKPOINT";
}
/**
 * A tokenizer file is damaged, or does not fit its use.
 *
 * A model works with the tokenizer that it was trained with: the one that lies in its checkpoint.
 */
export class TokenizerError extends BaseError {
  readonly code = "ERR_TOKENIZER";
}
/**
 * A run folder is locked, read-only, or not a run folder.
 *
 * A lock whose process has died on this machine is taken over by itself. A lock of another machine is not: only you can know
 * whether that process still lives.
 */
export class RunError extends BaseError {
  readonly code = "ERR_RUN";
}
/**
 * The disk has no room for what is about to be written.
 *
 * What was written before stays valid. Free some space, or move the run folder to another disk, and resume.
 */
export class DiskError extends BaseError {
  readonly code = "ERR_DISK";
}
/**
 * A loss, gradient or weight is NaN or infinite.
 *
 * Single bad steps are skipped and logged. This error means that they repeat: the named tensor is where to look, a lower peak
 * learning rate is the first thing to try.
 */
export class NonFiniteError extends BaseError {
  readonly code = "ERR_NON_FINITE";
}
/**
 * A prompt and its answer do not fit the model's context.
 *
 * Shorten the prompt or ask for fewer tokens; the model's `maxPositionEmbeddings` is the limit.
 */
export class ContextLengthError extends BaseError {
  readonly code = "ERR_CONTEXT_LENGTH";
}

/** Holds what only a bug of ours could break; never for a user's mistake. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) {
    throw new Error(`${message}: this is a bug in minke; please report it with the line above`);
  }
}
