/** A model in training on one device, a rank's share of it if there are several: weights, moments, rotary tables and the step that moves them. */
import {
  fp8Precision,
  makeRopeTable,
  ParameterFactory,
  type Precision,
  precisions,
  Transformer,
} from "../model/index.ts";
import type { QueueDevice, RopeTable } from "../tensor/index.ts";
import type { TrainConfig } from "./config.ts";
import { DataParallel, type Team } from "./dataParallel.ts";
import { Optimizer } from "./optimizer.ts";
import { StepRunner } from "./step.ts";

/** What the tokenizer says about ids. */
export interface TokenRoles {
  /** Stands in for padding. */
  readonly padId: number;
  /** Ends a document. */
  readonly eosId: number;
}

export class TrainSession {
  readonly device: QueueDevice;
  readonly config: TrainConfig;
  readonly precision: Precision;
  readonly factory: ParameterFactory;
  readonly model: Transformer;
  /** Null for one rank alone. */
  readonly dataParallel: DataParallel | null;
  /** With ZeRO-1 it has the parameters that this rank owns, otherwise all. */
  readonly optimizer: Optimizer;
  readonly rope: RopeTable;
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
    this.factory = new ParameterFactory(device, config.model, { precision: this.precision, isTrained: true });
    this.model = new Transformer(config.model, this.factory);
    const { parameters } = this.factory;
    const dataParallel = team === null ? null : new DataParallel(team, parameters);
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
      dispatch: null,
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
    for (const { alias } of this.factory.tied) alias.dispose("grad");
    for (const parameter of this.factory.parameters) parameter.dispose();
    for (const { value } of this.factory.buffers) value.dispose();
  }
}
