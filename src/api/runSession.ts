/** A run's session: weights initialised or restored, rows from the right position, checkpoints and samples. */
import { join } from "node:path";
import type { JsonObject, RunEventBody, RunWarning } from "../base/index.ts";
import {
  CheckpointStore,
  readTrainState,
  readWeights,
  writeModel,
  writeTrainState,
} from "../checkpoint/index.ts";
import { generateIds, type Runner } from "../engine/index.ts";
import { type RunFolder, writeFileAtomic } from "../run/index.ts";
import { sizeOf } from "../tensor/index.ts";
import { writeTokenizerConfig, writeTokenizerJson } from "../text/index.ts";
import {
  type LoopState,
  openSession as openTrainSession,
  parseLoopState,
  RowSampler,
  type Session,
  type TrainConfig,
} from "../train/index.ts";
import { onFirstRank } from "./firstRank.ts";
import { numericClass } from "./numericClass.ts";
import type { OpenRank } from "./openRanks.ts";
import type { PreparedRun } from "./prepareRun.ts";
import {
  expertsElsewhere,
  gathered,
  heldHere,
  type Source,
  type StateEntry,
  stateBytes,
  stateEntries,
} from "./runState.ts";

export interface RunSession {
  readonly root: string;
  readonly session: Session;
  readonly sampler: RowSampler;
  /** Null for a run that starts anew. */
  readonly from: LoopState | null;
  readonly warnings: readonly RunEventBody[];
  sample(prompt: string): Promise<string>;
  save(
    state: LoopState,
    reason: "scheduled" | "last" | "interrupted",
    emit: (body: RunEventBody) => void,
    flush: () => Promise<void>,
  ): Promise<string>;
  /** The last step of which a checkpoint was written. */
  lastStep(): number;
  dispose(): void;
}

/** @param beatMs  how often ranks that wait for the first one are told to wait on */
export async function startSession(
  { folder, isResumed }: { readonly folder: RunFolder; readonly isResumed: boolean },
  config: TrainConfig,
  prepared: PreparedRun,
  rank: OpenRank,
  beatMs?: number,
): Promise<RunSession> {
  const { tokenizer } = prepared;
  const session = openSession(rank, config, prepared);
  const entries = stateEntries(session);
  const store = new CheckpointStore(folder, config.checkpoint);
  const warnings: RunEventBody[] = [];
  const numerics = numericClass(rank, config.precision);
  const alone = <T>(task: (source: Source | null) => Promise<T>): Promise<T> =>
    onFirstRank(rank, task, beatMs);
  const { path } = await alone(async (): Promise<FoundCheckpoint> => {
    await store.clean();
    await store.requireRoom(checkpointBytes(session, entries), config.steps);
    return { path: isResumed ? await findCheckpoint(store, warnings) : null };
  });
  // The first rank may have more to read than the others, and they wait for its first step.
  const { state } = await alone(async () => ({ state: await restoreOrInitialize(session, path) }));
  if (state !== null) warnOfNumerics(state, numerics, warnings);
  const from = state?.loop ?? null;
  let lastStep = from?.step ?? 0;

  return {
    root: folder.paths.root,
    session,
    sampler: new RowSampler(prepared.data.train, config.seed),
    from,
    warnings,
    lastStep: () => lastStep,
    sample: (prompt) => sampleText(session, prepared, prompt),
    save: (state, reason, emit, flush) =>
      alone(async (source) => {
        const started = performance.now();
        await flush();
        const { written, removed } = await store.write(
          state.step,
          state.validationLoss,
          checkpointBytes(session, entries),
          async (path) => {
            const elsewhere = expertsElsewhere(session, source);
            await writeModel(path, session.factory, elsewhere === undefined ? {} : { elsewhere });
            await writeFileAtomic(join(path, "tokenizer.json"), writeTokenizerJson(tokenizer));
            await writeFileAtomic(join(path, "tokenizer_config.json"), writeTokenizerConfig(tokenizer));
            const stored = { loop: state, numerics } as unknown as JsonObject;
            await writeTrainState(path, gathered(entries, source), stored);
          },
        );
        lastStep = state.step;
        const path = `checkpoints/step-${state.step}`;
        const seconds = (performance.now() - started) / 1000;
        emit({ type: "checkpoint.written", step: state.step, path, bytes: written.bytes, seconds, reason });
        for (const { step } of removed)
          emit({ type: "checkpoint.removed", step, path: `checkpoints/step-${step}` });
        return path;
      }),
    dispose: () => session.dispose(),
  };
}

/** Continues a prompt. Where ranks share the experts, all of them do so together, each with the same words. */
export async function sampleText(
  session: Session,
  { tokenizer }: PreparedRun,
  prompt: string,
): Promise<string> {
  const { device, model, config, precision, rope, dispatch } = session;
  const runner: Runner = { device, model, config: config.model, precision, rope, dispatch };
  const ids = tokenizer.encode(prompt);
  const start = ids.length > 0 ? ids : Int32Array.of(tokenizer.eosId);
  const made: number[] = [];
  const options = {
    maxTokens: config.sample.maxTokens,
    temperature: 0.8,
    topP: 0.95,
    seed: config.seed,
    stopIds: [tokenizer.eosId],
  };
  for await (const id of generateIds(runner, start, options)) made.push(id);
  return tokenizer.decode(made.filter((id) => id < tokenizer.vocabSize));
}

/** The newest whole checkpoint; what is wrong with those beyond it is told. */
async function findCheckpoint(store: CheckpointStore, warnings: RunEventBody[]): Promise<string | null> {
  const { found, damaged } = await store.open();
  for (const { step, path, reason } of damaged) {
    const fallback = found === null ? null : `checkpoints/step-${found.step}`;
    warnings.push({ type: "checkpoint.damaged", step, path, reason, fallback });
  }
  if (found !== null) return found.path;
  const warning: RunWarning = {
    type: "run.warning",
    what: "the run has no whole checkpoint: it starts again from its first step",
    why: "it was stopped before its first checkpoint was written, or all of them are damaged",
    fix: null,
  };
  warnings.push(warning);
  return null;
}

interface Restored {
  readonly loop: LoopState;
  readonly numerics: unknown;
}

/** What the first rank tells the others before they fill their weights. */
export interface FoundCheckpoint {
  /** Null starts anew. */
  readonly path: string | null;
}

/** What every rank does with the checkpoint that the first has found: it takes what it holds. Null starts anew. */
export async function restoreOrInitialize(session: Session, path: string | null): Promise<Restored | null> {
  if (path === null) {
    session.initialize();
    return null;
  }
  const entries = stateEntries(session);
  await session.readFrom((factory, place) => readWeights(path, factory, place));
  const names = entries.map(({ name }) => name);
  const state = await readTrainState(path, heldHere(entries), names);
  session.settleRead();
  return { loop: parseLoopState(state["loop"], join(path, "state.json")), numerics: state["numerics"] };
}

function warnOfNumerics({ numerics: stored }: Restored, numerics: string, warnings: RunEventBody[]): void {
  if (stored === numerics) return;
  warnings.push({
    type: "run.warning",
    what: `the run was computed by ${String(stored)} arithmetic and goes on with ${numerics}`,
    why: "these sum in different orders: the run is continued, not repeated bit for bit",
    fix: null,
  });
}

/** Allocates a rank's share of the model. */
export function openSession(
  { device, team }: OpenRank,
  config: TrainConfig,
  { tokenizer }: PreparedRun,
): Session {
  return openTrainSession(device, config, { padId: tokenizer.eosId, eosId: tokenizer.eosId }, team);
}

/** Tokenizer, configs and state of a checkpoint: V3's tokenizer.json has 8 MB. */
const SMALL_FILES = 2 ** 24;

function checkpointBytes({ factory }: Session, entries: readonly StateEntry[]): number {
  const weights = factory.parameters.reduce(
    (sum, parameter) => sum + 4 * sizeOf(factory.wholeShape(parameter)),
    0,
  );
  return stateBytes(entries) + weights + SMALL_FILES;
}
