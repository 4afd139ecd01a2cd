/**
 * A rank's share of a model that is cut into stages: what TrainSession is for a whole one.
 *
 * The first rank has a copy of the whole model besides, not trained: it evaluates, samples and writes checkpoints from it
 * after `assemble` has brought the present weights there. On the others the whole is names and shapes only.
 */
import { type DiskTensor, heldPart } from "../../checkpoint/index.ts";
import {
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
import { Optimizer } from "../optimizer.ts";
import { disposeFactory, type ReadWeights, type Session, type TokenRoles } from "../rankSession.ts";
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
  /** The experts of a stage's layers lie where the stage does. */
  readonly dispatch = null;
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
    this.#inventory = takeInventory(config.model, this.precision, layout, plan);
    this.#modules = makeModules({
      world: communicator,
      layout,
      zero1,
      plan,
      pipelineRank: pipeline.rank,
      config: config.model,
      precision: this.precision,
      gradientShards: config.gradientShards,
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
      zero1,
      modules: this.#modules,
      whole: this.factory,
      optimizer: this.optimizer,
      pass: { rope: this.rope, precision: this.precision },
      batchRows: config.batchRows,
      microBatchRows: config.microBatchRows,
      rowLength: config.rowLength,
      gradientShards: config.gradientShards,
      recomputes: config.recompute === "selective",
      balanceAlpha: config.balance.alpha,
      mtpDepth: config.model.numNextnPredictLayers,
      padId: roles.padId,
      documentEnd: config.data.maskDocuments ? roles.eosId : null,
    });
  }

  initialize(): void {
    for (const factory of this.heldFactories) factory.initialize(this.config.seed);
    this.optimizer.initialize();
  }

  /** World rank that is asked for a parameter's moments: with ZeRO-1 no other has them. */
  ownerOf(path: string): number {
    const { owner, holders } = this.#inventory.get(path)!;
    if (this.#zero1) return owner;
    // The first rank asks nobody for what it has.
    return holders.includes(0) ? 0 : holders[0]!;
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
      const holder = this.#inventory.get(path)!.holders[0]!;
      const held = this.#heldTensor(path);
      if (rank === 0 && holder === 0) copyInto(held!, whole);
      else if (rank === 0) receives.push({ from: holder, y: whole });
      else if (rank === holder) sends.push({ to: 0, x: held! });
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
      if (held !== null) copyInto(master, held);
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

  *#wholeTensors(): Generator<{ readonly path: string; readonly whole: Tensor }> {
    for (const { path, master } of this.factory.parameters) yield { path, whole: master };
    for (const { path, value } of this.factory.buffers) yield { path, whole: value };
  }
}
