/**
 * Decides whether a step's update is taken: not if it is not finite, not if it is a 6-sigma spike.
 *
 * A skipped step leaves weights, moments, router bias and averages as they were; the data moves on. The second
 * repeat in a row ends the run: then it is the model that is broken, not a batch. Only the third gradient in a row that
 * is large while the loss is not is taken for what it is, a new level: so four steps in a row are skipped at most.
 */
export type SkipReason = "non-finite loss" | "non-finite gradient" | "loss spike" | "gradient spike";

export type Verdict =
  | { readonly kind: "take" }
  | { readonly kind: "skip" | "stop"; readonly reason: SkipReason };

/** Steps that the running mean and deviation look back on, and how many must be there before they judge. */
const WINDOW = 128;
const MINIMUM = 32;
const SIGMAS = 6;
const STOP_AFTER = 3;

export interface GuardState {
  readonly losses: readonly number[];
  readonly norms: readonly number[];
  readonly skippedInARow: number;
  /** Of those, the last ones whose gradients alone were large. */
  readonly gradientSpikesInARow: number;
}

export class SpikeGuard {
  #losses: number[] = [];
  #norms: number[] = [];
  #skippedInARow = 0;
  #gradientSpikesInARow = 0;

  judge(loss: number, gradNorm: number): Verdict {
    const reason = reasonToSkip(loss, gradNorm, this.#losses, this.#norms);
    if (reason === null) {
      remember(this.#norms, gradNorm);
      return this.#take(loss);
    }
    this.#skippedInARow++;
    if (reason !== "gradient spike") {
      this.#gradientSpikesInARow = 0;
      return { kind: this.#skippedInARow >= STOP_AFTER ? "stop" : "skip", reason };
    }
    this.#gradientSpikesInARow++;
    if (this.#gradientSpikesInARow < STOP_AFTER) return { kind: "skip", reason };
    // Gradients that stay large while the loss stays where it was are no accident: a model that leaves a plateau has
    // them. Clipping bounds the step; what is usual is learnt anew.
    this.#norms = [gradNorm];
    return this.#take(loss);
  }

  #take(loss: number): Verdict {
    this.#skippedInARow = 0;
    this.#gradientSpikesInARow = 0;
    remember(this.#losses, loss);
    return { kind: "take" };
  }

  /** Part of a checkpoint: a resumed run must judge as the uninterrupted one. */
  get state(): GuardState {
    return {
      losses: [...this.#losses],
      norms: [...this.#norms],
      skippedInARow: this.#skippedInARow,
      gradientSpikesInARow: this.#gradientSpikesInARow,
    };
  }

  set state(state: GuardState) {
    this.#losses = [...state.losses];
    this.#norms = [...state.norms];
    this.#skippedInARow = state.skippedInARow;
    this.#gradientSpikesInARow = state.gradientSpikesInARow;
  }
}

function reasonToSkip(
  loss: number,
  gradNorm: number,
  losses: readonly number[],
  norms: readonly number[],
): SkipReason | null {
  if (!Number.isFinite(loss)) return "non-finite loss";
  if (!Number.isFinite(gradNorm)) return "non-finite gradient";
  if (isSpike(loss, losses)) return "loss spike";
  return isSpike(gradNorm, norms) ? "gradient spike" : null;
}

/** Only upward: a loss that falls fast is no accident. */
function isSpike(value: number, past: readonly number[]): boolean {
  if (past.length < MINIMUM) return false;
  const mean = past.reduce((sum, x) => sum + x, 0) / past.length;
  const deviation = Math.sqrt(past.reduce((sum, x) => sum + (x - mean) ** 2, 0) / past.length);
  // A window that hardly varies would call its own noise a spike.
  return value > mean + SIGMAS * Math.max(deviation, 0.01 * Math.abs(mean));
}

function remember(window: number[], value: number): void {
  window.push(value);
  if (window.length > WINDOW) window.shift();
}
