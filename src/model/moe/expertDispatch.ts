/**
 * How tokens reach experts that are held elsewhere, and answers come back.
 *
 * Declared here, implemented by whoever computes a model in several places. One pass computes its own tokens and, at
 * the same time, its experts' answers to the tokens of all senders; who sends is numbered from 0 and includes itself.
 */
import type {
  Activation,
  DispatchPlan,
  ExpertAnswers,
  ExpertRows,
  Tensor,
  TileFormat,
} from "../../tensor/index.ts";

export interface ExpertDispatch {
  /**
   * Begins to send every token, once, to each place that holds one of its experts.
   *
   * @param input    [T, D], in tiles if the experts read tiles: they cross as they are
   * @param plan     over all experts
   * @param weights  [T, K]
   */
  post(input: Activation, plan: DispatchPlan, weights: Tensor): TokensUnderWay;
}

/** Between `post` and `arrived` other work can be put in line: it is done while tokens travel. */
export interface TokensUnderWay {
  /** What each sender asks of the experts here. */
  arrived(): readonly AskedRows[];
  /**
   * Sends the answers back and sums them for each token, as one mixture over all experts would.
   *
   * @param answers   by sender, from `expertAnswers`
   * @param shared    [T, D], added unweighted
   * @param gradient  the tiles in which the gradient of y crosses; null as it is
   * @param dtype     of y
   * @returns         [T, D]
   */
  answered(
    answers: readonly ExpertAnswers[],
    shared: Tensor | null,
    gradient: TileFormat | null,
    dtype: Tensor["dtype"],
  ): Tensor;
}

/** One sender's tokens and the rows that they make for the experts here. */
export interface AskedRows {
  /** [T, D], of which as many are there as were sent */
  readonly x: Activation;
  readonly rows: ExpertRows;
  /** [R] f32: how much each row's answer counts */
  readonly gates: Tensor;
}
