/** One MoE layer, forward and back, in one process and over an expert group of ranks in this process. */
import { type ModelConfig, Moe, ParameterFactory, type Pass, type Precision } from "../../src/model/index.ts";
import {
  ExpertExchange,
  everyRank,
  type InProcessOptions,
  inProcess,
  TwoHopExchange,
} from "../../src/parallel/index.ts";
import { cast, type QueueDevice, scoped, Tape, type Tensor } from "../../src/tensor/index.ts";
import { normals } from "./random.ts";

export interface MoeProblem {
  readonly config: ModelConfig;
  readonly precision: Precision;
  /** Tokens of each rank's micro-batch. */
  readonly tokens: number;
  /** Ranks of the group; as many micro-batches are computed. */
  readonly ranks: number;
  /** Added to the router's bias: sends tokens where it is large. */
  readonly bias?: readonly number[];
  readonly recomputes?: boolean;
  /** Fills the memory that the pass will get with NaN: what is read behind a count then spoils the result. */
  readonly poisoned?: boolean;
}

/** What one micro-batch gives, as bytes in hex: equal or not. */
export interface MoeResult {
  readonly y: string;
  readonly dx: string;
  readonly expertIds: readonly number[];
  readonly routerGradient: string;
  readonly sharedGradient: string;
  /** By expert: both weights' gradients. */
  readonly expertGradients: readonly string[];
}

type Options = Pick<InProcessOptions, "backend"> & { readonly threads?: number };

/** Every micro-batch by itself on one queue with all experts. */
export async function moeAlone(problem: MoeProblem, options: Options): Promise<readonly MoeResult[]> {
  const [communicator] = inProcess(1, { ...options, limitBytes: 2 ** 31 });
  const { device } = communicator!;
  const results: MoeResult[] = [];
  for (let sender = 0; sender < problem.ranks; sender++) {
    const factory = new ParameterFactory(device, problem.config, {
      precision: problem.precision,
      isTrained: true,
    });
    const moe = makeMoe(factory, problem);
    const own = await pass(device, moe, null, problem, sender);
    const { nRoutedExperts: E } = problem.config;
    const expertGradients: string[] = [];
    for (let e = 0; e < E; e++) expertGradients.push(await expertGradient(moe, 0, e));
    results.push({ ...own, expertGradients });
  }
  await device.dispose();
  return results;
}

export interface GroupResult {
  readonly results: readonly MoeResult[];
  /** By rank: copies of tokens that it sent, by receiving rank; in two hops by node, then by rank of its node. */
  readonly sent: readonly (readonly number[])[];
  /** By rank: tensors that are still there when the pass has ended, beyond those before it. */
  readonly left: readonly number[];
}

/** Each micro-batch on a rank of its own, at the same time. */
export async function moeInGroup(
  problem: MoeProblem,
  options: Options,
  ranksPerNode: number | null = null,
): Promise<GroupResult> {
  const communicators = inProcess(problem.ranks, { ...options, limitBytes: 2 ** 31 });
  const { nRoutedExperts: E } = problem.config;
  const count = E / problem.ranks;
  const ranks = await everyRank(communicators, async (communicator) => {
    const { device, rank } = communicator;
    const experts = { first: rank * count, count, senders: problem.ranks };
    const factory = new ParameterFactory(device, problem.config, {
      precision: problem.precision,
      isTrained: true,
      experts,
    });
    const moe = makeMoe(factory, problem);
    const zeros = (size: number): Tensor => {
      const counts = device.temporary([size], "i32");
      counts.write(new Int32Array(size));
      return counts;
    };
    const sent = zeros(problem.ranks);
    const [firstHop, secondHop] = [
      zeros(Math.ceil(problem.ranks / (ranksPerNode ?? 1))),
      zeros(ranksPerNode ?? 1),
    ];
    const before = device.arena.liveCount;
    const dispatch =
      ranksPerNode === null
        ? new ExpertExchange(communicator, undefined, sent)
        : new TwoHopExchange(communicator, ranksPerNode, undefined, { firstHop, secondHop });
    const own = await pass(device, moe, dispatch, problem, rank);
    const left = device.arena.liveCount - before;
    const gradients: string[][] = [];
    for (let sender = 0; sender < problem.ranks; sender++) {
      gradients.push([]);
      for (let e = 0; e < count; e++) gradients[sender]!.push(await expertGradient(moe, sender, e));
    }
    const counts = ranksPerNode === null ? [sent] : [firstHop, secondHop];
    const read = await Promise.all(counts.map((tensor) => tensor.read()));
    return { own, gradients, sent: read.flatMap((numbers) => Array.from(numbers)), left };
  });
  await Promise.all(communicators.map(({ device }) => device.dispose()));
  return {
    results: ranks.map(({ own }, sender) => ({
      ...own,
      expertGradients: ranks.flatMap(({ gradients }) => gradients[sender]!),
    })),
    sent: ranks.map(({ sent }) => sent),
    left: ranks.map(({ left }) => left),
  };
}

function makeMoe(factory: ParameterFactory, { config, bias }: MoeProblem): Moe {
  const moe = new Moe(config, factory, "mlp");
  factory.initialize(5);
  if (bias !== undefined) moe.router.bias.value.write(bias);
  for (const { grad } of [...factory.parameters, ...factory.experts.flatMap(({ bySender }) => bySender)]) {
    // Gradients are added to what is there: numbers that are not zero show a buffer that was cleared or mixed up.
    grad!.write(new Float64Array(grad!.size).fill(0.125));
  }
  return moe;
}

async function pass(
  device: QueueDevice,
  moe: Moe,
  dispatch: Pass["dispatch"],
  { config, precision, tokens, recomputes = false, poisoned = false }: MoeProblem,
  sender: number,
): Promise<Omit<MoeResult, "expertGradients">> {
  if (poisoned) {
    using garbage = device.temporary([POISONED_BYTES / 4], "f32");
    // NaN in every dtype: f32, bf16 and E4M3.
    garbage.writeBytes(new Uint8Array(POISONED_BYTES).fill(0xff));
  }
  using _scope = device.scope();
  const D = config.hiddenSize;
  const random = (seed: number): Tensor =>
    cast(device.from(normals(tokens * D, seed + sender), [tokens, D], "f32"), precision.activation);
  const [x, dy] = [random(100), random(200)];
  using tape = new Tape(device, { recomputes });
  tape.watch(x);
  // A layer reads of a pass nothing but these.
  const layer = (): ReturnType<Moe["forward"]> =>
    moe.forward(x, { precision, dispatch, balanceAlpha: null } as Pass);
  // What the tape gives up is made again only if nobody else holds it: a layer's scope ends before the way back.
  const { y, report } = device.withTape(tape, () =>
    scoped(device, layer, (output) => [output.y, output.report.plan.expertIds]),
  );
  tape.seed(y, dy);
  tape.backward();
  return {
    y: await hex(y),
    dx: await hex(tape.gradOf(x)!),
    expertIds: Array.from(await report.plan.expertIds.read()),
    routerGradient: await hex(moe.router.weight.grad!),
    sharedGradient: moe.sharedExperts === null ? "" : await hex(moe.sharedExperts.downProj.grad!),
  };
}

async function expertGradient(moe: Moe, sender: number, expert: number): Promise<string> {
  const parts = [moe.gateUpProj, moe.downProj].map(({ bySender }) =>
    hex(bySender[sender]!.grad!.rows(expert, expert + 1)),
  );
  return (await Promise.all(parts)).join();
}

/** More than a pass takes. */
const POISONED_BYTES = 2 ** 22;

async function hex(tensor: Tensor): Promise<string> {
  return Buffer.from(await tensor.readBytes()).toString("hex");
}
