/**
 * A row for each op, timed where the model runs it: with the operands, the sizes and the caches that it has there.
 *
 * Programs are traced one after another, and an op's row comes from the first program that runs it. A command's time
 * is the least of all rounds: what disturbs one round seldom hits the same command in the next.
 */
import { totalmem } from "node:os";
import type { OpenDevice } from "../../api/index.ts";
import { invariant } from "../../base/index.ts";
import { generateIds } from "../../engine/index.ts";
import { QueueDevice, scale, TracedBackend, type TracedCommand } from "../../tensor/index.ts";
import { sumByOp } from "./opTable.ts";
import type { BenchFlags, BenchRow } from "./row.ts";
import { TimedTraining } from "./workload.ts";

/** Tokens of a prompt, and of what is generated behind it. */
const [PROMPT, ANSWER] = [64, 16];

interface Program {
  /** For people: "training step". */
  readonly name: string;
  /** Enqueues the same commands every time, but for a training's first step, which clears gradients. */
  run(): Promise<void>;
}

export async function* benchOps(opened: OpenDevice, flags: BenchFlags): AsyncGenerator<BenchRow> {
  const { preset, precision, rounds } = flags;
  const traced = new TracedBackend(opened.native!);
  // A device of its own over the same queue: what the other one's tensors hold is not read again.
  const device = new QueueDevice(traced, totalmem());
  const seen = new Set<string>();
  for (const optimizer of ["adamw", "muon"] as const) {
    const training = new TimedTraining({ device }, flags, {
      change: (config) => ({ ...config, optimizer: { ...config.optimizer, ...optimizerChanges[optimizer] } }),
    });
    const programs =
      optimizer === "adamw"
        ? withAdamw(device, training)
        : [trainingProgram(training, "training step, Muon")];
    for (const program of programs) {
      const { commands, peak } = await leastOf(opened, traced, program, flags);
      for (const { op, seconds, ...figures } of sumByOp(commands, peak)) {
        if (seen.has(op)) continue;
        seen.add(op);
        // A mean: calls of one op differ in size.
        const microseconds = (seconds / figures.calls) * 1e6;
        yield {
          bench: "ops",
          name: op,
          program: program.name,
          preset,
          threads: opened.threads,
          precision,
          rounds,
          microseconds,
          ...figures,
        };
      }
    }
    training.dispose();
  }
}

const optimizerChanges = {
  adamw: { kind: "adamw", emaDecay: 0.999 },
  muon: { kind: "muon" },
} as const;

function trainingProgram(training: TimedTraining, name: string): Program {
  return { name, run: async () => void (await training.step()) };
}

/** What a model in training can be asked to do beside. */
function withAdamw(device: QueueDevice, training: TimedTraining): readonly Program[] {
  const { session, config } = training;
  const { model, precision, rope } = session;
  const runner = { device, model, config: config.model, precision, rope };
  const prompt = Int32Array.from({ length: PROMPT }, (_, i) => (i * 7919) % config.model.vocabSize);
  return [
    trainingProgram(training, "training step, AdamW"),
    {
      name: `generation of ${ANSWER} tokens`,
      async run() {
        const options = { maxTokens: ANSWER, temperature: 1, seed: 1 };
        for await (const _ of generateIds(runner, prompt, options));
      },
    },
    {
      name: "drawing of weights",
      async run() {
        session.initialize();
        await device.drain();
      },
    },
    {
      // No model of ours scales a tensor by itself.
      name: "alone",
      async run() {
        const tokens = config.batchRows * config.rowLength;
        using _scope = device.scope();
        scale(device.empty([tokens, config.model.hiddenSize], "f32"), 0.5);
        await device.drain();
      },
    },
  ];
}

/** The program's commands, each with the least time of all rounds, and the register peak between them. */
async function leastOf(
  { native }: OpenDevice,
  traced: TracedBackend,
  program: Program,
  { precision, rounds }: BenchFlags,
): Promise<{ readonly commands: readonly TracedCommand[]; readonly peak: number }> {
  await program.run();
  traced.start();
  const runs: (readonly TracedCommand[])[] = [];
  let peak = 0;
  for (let round = 0; round < rounds; round++) {
    await program.run();
    runs.push(traced.take());
    peak = Math.max(peak, await native!.peak(precision, 0.05));
  }
  traced.stop();
  return { commands: leastTimes(runs), peak };
}

/** Commands of equal runs, each as in the run in which it took the least time. */
export function leastTimes(runs: readonly (readonly TracedCommand[])[]): readonly TracedCommand[] {
  const took = ({ begin, end }: TracedCommand): number => end - begin;
  return runs.reduce((least, run) => {
    invariant(
      run.length === least.length && run.every(({ op }, i) => op === least[i]!.op),
      "every round of a program runs the same commands",
    );
    return run.map((command, i) => (took(command) < took(least[i]!) ? command : least[i]!));
  });
}
