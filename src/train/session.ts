/** A model in training on one device, a rank's share of it if there are several: weights, moments, rotary tables and the step that moves them. */

import { ConfigError } from "../base/index.ts";
import { heldPart } from "../checkpoint/index.ts";
import {
  type ExpertDispatch,
  type ExpertShare,
  fp8Precision,
  makeRopeTable,
  ParameterFactory,
  type Precision,
  precisions,
  Transformer,
} from "../model/index.ts";
import { type Communicator, checkExperts, ExpertExchange, TwoHopExchange } from "../parallel/index.ts";
import type { QueueDevice, RopeTable, Tensor } from "../tensor/index.ts";
import type { TrainConfig } from "./config.ts";
import { DataParallel, type Team } from "./dataParallel.ts";
import { Optimizer } from "./optimizer.ts";
import { disposeFactory, type ReadWeights, type Session, type TokenRoles } from "./rankSession.ts";
import { StepRunner } from "./step.ts";

export class TrainSession implements Session {
  readonly device: QueueDevice;
  readonly config: TrainConfig;
  readonly precision: Precision;
  readonly factory: ParameterFactory;
  readonly model: Transformer;
  /** Null for one rank alone. */
  readonly dataParallel: DataParallel | null;
  /** How tokens reach the experts of other ranks; null where this one has all. */
  readonly dispatch: ExpertDispatch | null;
  /** With ZeRO-1 it has the parameters that this rank owns, otherwise all. */
  readonly optimizer: Optimizer;
  readonly rope: RopeTable;
  readonly pipeline = null;
  readonly runner: StepRunner;

  /**
   * Allocates everything; weights hold garbage until `initialize` or a checkpoint fills them.
   *
   * @param team  the ranks that share each step; null for one alone
   */
  constructor(device: QueueDevice, config: TrainConfig, roles: TokenRoles, team: Team | null = null) {
    this.device = device;
    this.config = config;
    this.precision = config.precision === "fp8" ? fp8Precision(config.fp8) : precisions[config.precision];
    const group = team === null ? null : expertGroup(team);
    const experts = group === null ? null : shareOf(config, this.precision, group);
    this.factory = new ParameterFactory(device, config.model, {
      precision: this.precision,
      isTrained: true,
      ...(experts === null ? {} : { experts }),
    });
    this.dispatch = group === null ? null : dispatchOver(group, team?.ranksPerNode ?? null);
    this.model = new Transformer(config.model, this.factory);
    const { parameters } = this.factory;
    const routed = new Set(this.factory.experts.map(({ weight }) => weight));
    const dataParallel = team === null ? null : new DataParallel(team, parameters, routed);
    this.dataParallel = dataParallel;
    const updated =
      dataParallel?.zero1 === true ? parameters.filter((_, i) => dataParallel.owns(i)) : parameters;
    this.optimizer = new Optimizer(device, updated, config.optimizer);
    this.rope = makeRopeTable(device, config.model, config.model.maxPositionEmbeddings, "f32");
    this.runner = new StepRunner({
      device,
      model: this.model,
      factory: this.factory,
      optimizer: this.optimizer,
      dataParallel,
      dispatch: this.dispatch,
      rope: this.rope,
      precision: this.precision,
      batchRows: config.batchRows,
      microBatchRows: config.microBatchRows,
      rowLength: config.rowLength,
      gradientShards: config.gradientShards,
      recomputes: config.recompute === "selective",
      balanceAlpha: config.balance.alpha,
      padId: roles.padId,
      documentEnd: config.data.maskDocuments ? roles.eosId : null,
    });
  }

  get heldFactories(): readonly ParameterFactory[] {
    return [this.factory];
  }

  get communicator(): Communicator | null {
    return this.dataParallel?.communicator ?? null;
  }

  ownerOf(path: string): number | null {
    const { dataParallel, factory } = this;
    if (dataParallel?.zero1 !== true) return null;
    return dataParallel.owners[factory.parameters.findIndex((parameter) => parameter.path === path)]!;
  }

  masterOf(path: string): Tensor | null {
    return this.factory.parameters.find((parameter) => parameter.path === path)?.master ?? null;
  }

  /** Every rank has the whole model at all times. */
  assemble(): void {}

  readFrom(read: ReadWeights): Promise<void> {
    return read(this.factory, (disk) => heldPart(this.factory, disk));
  }

  settleRead(): void {
    for (const parameter of this.factory.parameters) parameter.repack();
  }

  /** Draws the weights; moments and averages start from them. */
  initialize(): void {
    this.factory.initialize(this.config.seed);
    this.optimizer.initialize();
  }

  dispose(): void {
    this.runner.dispose();
    this.optimizer.dispose();
    this.rope.cos.dispose();
    this.rope.sin.dispose();
    disposeFactory(this.factory);
  }
}

/** The ranks that share the experts with this one; null where it has all. */
function expertGroup({ communicator, ep = 1 }: Team): Communicator | null {
  if (ep === 1) return null;
  const first = Math.floor(communicator.rank / ep) * ep;
  return communicator.split(Array.from({ length: ep }, (_, i) => first + i));
}

function dispatchOver(group: Communicator, ranksPerNode: number | null): ExpertDispatch {
  return ranksPerNode === null ? new ExpertExchange(group) : new TwoHopExchange(group, ranksPerNode);
}

/** @throws {ConfigError} if the experts cannot be shared, or their numbers would depend on who has them */
function shareOf({ model }: TrainConfig, { fp8 }: Precision, { rank, size }: Communicator): ExpertShare {
  checkExperts({ ep: size }, model);
  const count = model.nRoutedExperts / size;
  if (fp8?.experts.input.scaling === "tensor") {
    throw new ConfigError("one scale for a whole tensor cannot be had where experts lie on several ranks", {
      why: "the greatest magnitude of all experts' weights, and of what all are sent, is known to no rank",
      fix: "use --set fp8.scaling=tile, or ep=1",
      fields: { scaling: "tensor", ep: size },
    });
  }
  return { first: rank * count, count, senders: size };
}
