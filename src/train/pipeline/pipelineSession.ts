/**
 * A rank's share of a model that is cut into stages: what TrainSession is for a whole one.
 *
 * The first rank has a copy of the whole model besides, not trained: it evaluates, samples and writes checkpoints from it
 * after `assemble` has brought the present weights there. On the others the whole is names and shapes only.
 */
import { type DiskTensor, heldPart } from "../../checkpoint/index.ts";
import {
  type ExpertShare,
  fp8Precision,
  makeRopeTable,
  ParameterFactory,
  type Precision,
  precisions,
  Transformer,
} from "../../model/index.ts";
import {
  type Communicator,
  type PipelineLayout,
  type PipelinePlan,
  pipelineRanks,
  planSchedule,
  type Receive,
  type Send,
} from "../../parallel/index.ts";
import { copyInto, PlanBackend, QueueDevice, type RopeTable, type Tensor } from "../../tensor/index.ts";
import type { TrainConfig } from "../config.ts";
import type { Team } from "../dataParallel.ts";
import { expertGroup } from "../expertGroup.ts";
import { Optimizer } from "../optimizer.ts";
import {
  type Asked,
  disposeFactory,
  type ReadWeights,
  type Session,
  type StateKind,
  stepSettings,
  type TokenRoles,
} from "../rankSession.ts";
import { type Inventory, takeInventory } from "./inventory.ts";
import { type Module, makeModules } from "./modules.ts";
import { PipelineRunner } from "./pipelineRunner.ts";

export type PipelineTeam = Team & { readonly pipeline: PipelineLayout };

export class PipelineSession implements Session {
  readonly device: QueueDevice;
  readonly config: TrainConfig;
  readonly precision: Precision;
  readonly factory: ParameterFactory;
  readonly model: Transformer;
  readonly optimizer: Optimizer;
  readonly rope: RopeTable;
  readonly communicator: Communicator;
  readonly pipeline: { readonly plan: PipelinePlan; readonly rank: number };
  /** The first rank has the whole model with all experts. */
  readonly dispatch = null;
  readonly experts: ExpertShare | null;
  readonly runner: PipelineRunner;
  readonly heldFactories: readonly ParameterFactory[];
  readonly #modules: readonly Module[];
  readonly #inventory: Inventory;
  readonly #zero1: boolean;

  constructor(device: QueueDevice, config: TrainConfig, roles: TokenRoles, team: PipelineTeam) {
    const { communicator, zero1, pipeline: layout } = team;
    this.device = device;
    this.config = config;
    this.communicator = communicator;
    this.#zero1 = zero1;
    this.precision = config.precision === "fp8" ? fp8Precision(config.fp8) : precisions[config.precision];
    const isFirst = communicator.rank === 0;
    const wholeDevice = isFirst ? device : new QueueDevice(new PlanBackend(), Number.MAX_SAFE_INTEGER);
    this.factory = new ParameterFactory(wholeDevice, config.model, {
      precision: this.precision,
      isTrained: false,
    });
    this.model = new Transformer(config.model, this.factory);
    const data = communicator.rank % layout.dp;
    const pipeline = communicator.split(pipelineRanks(layout, data));
    const microBatches = config.batchRows / config.microBatchRows / layout.dp;
    const plan = planSchedule(layout.schedule, { ranks: layout.pp, microBatches });
    this.pipeline = { plan, rank: pipeline.rank };
    const experts = expertGroup(team, config);
    const share = experts?.share ?? null;
    this.experts = share;
    this.#inventory = takeInventory(config.model, this.precision, layout, plan, share);
    this.#modules = makeModules({
      world: communicator,
      layout,
      zero1,
      plan,
      pipelineRank: pipeline.rank,
      config: config.model,
      precision: this.precision,
      gradientShards: config.gradientShards,
      share,
    });
    this.heldFactories = this.#modules.map(({ factory }) => factory);
    const updated = this.#modules.flatMap(({ factory, dataParallel }) =>
      factory.parameters.filter((_, i) => !zero1 || dataParallel.owns(i)),
    );
    this.optimizer = new Optimizer(device, updated, config.optimizer);
    this.rope = makeRopeTable(device, config.model, config.model.maxPositionEmbeddings, "f32");
    this.runner = new PipelineRunner({
      device,
      world: communicator,
      pipeline,
      layout,
      experts,
      zero1,
      modules: this.#modules,
      whole: this.factory,
      optimizer: this.optimizer,
      pass: { rope: this.rope, precision: this.precision },
      mtpDepth: config.model.numNextnPredictLayers,
      ...stepSettings(config, roles),
    });
  }

  initialize(): void {
    for (const factory of this.heldFactories) factory.initialize(this.config.seed);
    this.optimizer.initialize();
  }

  askedFor(path: string, kind: StateKind): Asked {
    const parts = this.#inventory.get(path)!;
    // The first rank has the whole model; the others fill their parts of it.
    if (kind === "master") return this.communicator.rank === 0 ? [null] : parts.map(() => null);
    if (this.#zero1) return parts.map(({ owner }) => owner);
    return parts.map(({ holders }) => (holders.includes(0) ? 0 : holders[0]!));
  }

  masterOf(path: string): Tensor | null {
    return this.communicator.rank === 0
      ? (this.factory.parameters.find((parameter) => parameter.path === path)?.master ?? null)
      : this.#heldTensor(path);
  }

  /** Brings the present weights and router biases into the first rank's whole model. */
  assemble(): void {
    const { rank } = this.communicator;
    const sends: Send[] = [];
    const receives: Receive[] = [];
    for (const { path, whole } of this.#wholeTensors()) {
      const held = this.#heldTensor(path);
      for (const [share, { holders }] of this.#inventory.get(path)!.entries()) {
        const holder = holders[0]!;
        if (rank === 0 && holder === 0) copyInto(held!, this.#partOf(path, whole, share));
        else if (rank === 0) receives.push({ from: holder, y: this.#partOf(path, whole, share) });
        else if (rank === holder) sends.push({ to: 0, x: held! });
      }
    }
    this.communicator.exchange(sends, receives).wait();
    if (rank === 0) for (const parameter of this.factory.parameters) parameter.repack();
  }

  readFrom(read: ReadWeights): Promise<void> {
    const isFirst = this.communicator.rank === 0;
    return read(this.factory, (disk) => (isFirst ? heldPart(this.factory, disk) : this.#placeOf(disk)));
  }

  settleRead(): void {
    if (this.communicator.rank === 0) this.#takeHeld(this.factory);
    for (const { parameters } of this.heldFactories) for (const parameter of parameters) parameter.repack();
  }

  dispose(): void {
    this.runner.dispose();
    this.optimizer.dispose();
    this.rope.cos.dispose();
    this.rope.sin.dispose();
    for (const { factory, trees } of this.#modules) {
      trees.input.dispose();
      trees.weight.dispose();
      disposeFactory(factory);
    }
    disposeFactory(this.factory);
  }

  #placeOf(disk: DiskTensor): Tensor | null {
    const isNamed = ({ path }: { readonly path: string }): boolean => path === disk.path;
    const holder = this.heldFactories.find(
      ({ parameters, buffers }) => parameters.some(isNamed) || buffers.some(isNamed),
    );
    return holder === undefined ? null : heldPart(holder, disk);
  }

  #takeHeld({ parameters, buffers }: ParameterFactory): void {
    for (const { path, master } of parameters) {
      const held = this.#heldTensor(path);
      if (held !== null) copyInto(this.#partOf(path, master), held);
    }
    for (const { path, value } of buffers) {
      const held = this.#heldTensor(path);
      if (held !== null) copyInto(value, held);
    }
  }

  #heldTensor(path: string): Tensor | null {
    for (const { parameters, buffers } of this.heldFactories) {
      const found =
        parameters.find((parameter) => parameter.path === path)?.master ??
        buffers.find((buffer) => buffer.path === path)?.value;
      if (found !== undefined) return found;
    }
    return null;
  }

  /** Of a whole tensor, a share of the experts, by default this rank's; all of it where experts have no part in it. */
  #partOf(path: string, whole: Tensor, share: number = this.#ownShare): Tensor {
    const { length: shares } = this.#inventory.get(path)!;
    const count = whole.dim(0) / shares;
    return shares === 1 ? whole : whole.rows(share * count, (share + 1) * count);
  }

  get #ownShare(): number {
    return this.experts === null ? 0 : this.experts.first / this.experts.count;
  }

  *#wholeTensors(): Generator<{ readonly path: string; readonly whole: Tensor }> {
    for (const { path, master } of this.factory.parameters) yield { path, whole: master };
    for (const { path, value } of this.factory.buffers) yield { path, whole: value };
  }
}
