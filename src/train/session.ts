/** A model in training on one device, a rank's share of it if there are several: weights, moments, rotary tables and the step that moves them. */

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
import type { Communicator } from "../parallel/index.ts";
import type { QueueDevice, RopeTable, Tensor } from "../tensor/index.ts";
import type { TrainConfig } from "./config.ts";
import { DataParallel, type Team } from "./dataParallel.ts";
import { expertGroup } from "./expertGroup.ts";
import { Optimizer } from "./optimizer.ts";
import {
  type Asked,
  disposeFactory,
  type ReadWeights,
  type Session,
  type StateKind,
  stepSettings,
  type TokenRoles,
} from "./rankSession.ts";
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
  readonly experts: ExpertShare | null;
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
    const group = team === null ? null : expertGroup(team, config);
    this.experts = group?.share ?? null;
    this.factory = new ParameterFactory(device, config.model, {
      precision: this.precision,
      isTrained: true,
      ...(group === null ? {} : { experts: group.share }),
    });
    this.dispatch = group?.dispatch() ?? null;
    this.model = new Transformer(config.model, this.factory);
    const { parameters, experts } = this.factory;
    const dataParallel = team === null ? null : new DataParallel(team, parameters, { experts });
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
      ...stepSettings(config, roles),
    });
  }

  get heldFactories(): readonly ParameterFactory[] {
    return [this.factory];
  }

  get communicator(): Communicator | null {
    return this.dataParallel?.communicator ?? null;
  }

  askedFor(path: string, kind: StateKind): Asked {
    const { dataParallel, factory } = this;
    const index = factory.parameters.findIndex((parameter) => parameter.path === path);
    const owner = kind === "moments" && dataParallel?.zero1 === true ? dataParallel.ownerOf(index) : null;
    if (this.experts === null || factory.expertsOf(factory.parameters[index]!) === null) return [owner];
    // Ranks of a group follow one another; owners of all shares stand at the same place in their group.
    const { senders } = this.experts;
    const group = owner === null ? 0 : Math.floor(owner / senders);
    return Array.from({ length: senders }, (_, share) => group * senders + share);
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
