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
import {
  absMax,
  addCounts,
  dequantizeTiles,
  fill,
  fp8GradWeightKernel,
  fp8GroupedGradWeightKernel,
  fp8GroupedMatmulKernel,
  fp8MatmulKernel,
  gatherRows,
  panelElements,
  planCopies,
  planDispatch,
  type Quantized,
  QueueDevice,
  quantizeColumns,
  quantizeTiles,
  quantizeWeight,
  scale,
  type Tensor,
  TILE,
  TracedBackend,
  type TracedCommand,
  tilesOf,
  type WeightCodes,
} from "../../tensor/index.ts";
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
      name: "alone",
      async run() {
        runAlone(device, config.batchRows * config.rowLength, config.model.hiddenSize);
        await device.drain();
      },
    },
  ];
}

/** Ops that no model in f32 or bf16 runs alone: scaling a tensor by itself, what FP8 stores, what ranks share. */
function runAlone(device: QueueDevice, tokens: number, hidden: number): void {
  using _scope = device.scope();
  scale(device.empty([tokens, hidden], "f32"), 0.5);
  const x = device.empty([tokens, hidden], "bf16");
  fill(x, 0.5);
  absMax(x);
  const rule = { powerOfTwo: false, floor: 1e-4 };
  const cached = quantizeTiles(x, rule);
  dequantizeTiles(cached, "bf16");
  const columns = quantizeColumns(cached, rule);
  const master = device.empty([hidden, hidden], "f32");
  fill(master, 0.5);
  const elements = panelElements(hidden, hidden);
  const codes = {
    panels: device.empty([1, elements], "f8e4m3"),
    panelsT: device.empty([1, elements], "f8e4m3"),
    scales: device.empty([1, tilesOf(hidden), tilesOf(hidden)], "f32"),
  };
  quantizeWeight(master, codes, [1, hidden, hidden], false);
  multiplyAlone(device, cached, columns, codes);
  shareAlone(device, x);
}

/** What several ranks do besides: 8 experts at 4 of them, 2 of the experts for each token. */
function shareAlone(device: QueueDevice, x: Tensor): void {
  const [tokens, experts, topK, units] = [x.dim(0), 8, 2, 4];
  const ids = Array.from({ length: tokens }, (_, t) => [t % (experts / 2), experts / 2 + (t % 3)]).flat();
  const { offsets, rows } = planDispatch(device.from(ids, [tokens, topK], "i32"), experts, experts);
  const plan = planCopies(offsets, rows, { units, tokens, topK });
  gatherRows(x, plan.tokens, plan.bounds.rows(units, units + 1));
  addCounts(device.from([1, 2], [2], "i32"), device.from([3, 4], [2], "i32"));
}

/** The products of FP8, [hidden, hidden] by all tokens: of one weight, and of one expert that has them all. */
function multiplyAlone(device: QueueDevice, x: Quantized, columns: Quantized, w: WeightCodes): void {
  const [tokens, hidden] = [x.codes.dim(0), x.codes.dim(1)];
  const offsets = device.empty([2], "i32");
  offsets.write([0, tokens]);
  const y = device.empty([tokens, hidden], "bf16");
  const dw = device.empty([hidden, hidden], "f32");
  const sums = { promotion: TILE, accumulatorBits: 0 };
  const forward = { x: x.codes, xScales: x.scales, panels: w.panels, wScales: w.scales, y };
  const shape = { N: hidden, K: hidden, ...sums };
  device.run(fp8MatmulKernel, { ...forward, addend: null }, { M: tokens, transposed: 0, ...shape });
  const experts = { R: tokens, E: 1, ...shape };
  device.run(fp8GroupedMatmulKernel, { ...forward, rows: null, offsets }, { ...experts, transposed: 0 });
  fill(dw, 0);
  const { codes, scales } = columns;
  const factors = { dy: codes, dyScales: scales, x: codes, xScales: scales, dw };
  device.run(fp8GradWeightKernel, factors, { T: tokens, ...shape });
  device.run(fp8GroupedGradWeightKernel, { ...factors, offsets }, experts);
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
