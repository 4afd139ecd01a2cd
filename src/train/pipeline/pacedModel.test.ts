import { describe, expect, test } from "vitest";
import {
  type Action,
  actionDurations,
  chunksOf,
  type PipelinePlan,
  planDualPipe,
  planSchedule,
  QueueCommunicator,
  type SimulationCosts,
  stageOf,
} from "../../parallel/index.ts";
import { PlanBackend, QueueDevice, Tape } from "../../tensor/index.ts";
import { PacedModel } from "./pacedModel.ts";

/** Seconds of the pauses that are enqueued; nothing sleeps. */
class Pauses extends PlanBackend {
  readonly taken: number[] = [];
  readonly sent: number[] = [];

  override enqueue(...command: Parameters<PlanBackend["enqueue"]>): void {
    const [{ name }, operands, params] = command;
    if (name === "pause") this.taken.push((params[0] as number) / 1e6);
    if (name === "postSend") this.sent.push(4 * operands[0]!.length);
    super.enqueue(...command);
  }

  get sum(): number {
    return this.taken.reduce((total, seconds) => total + seconds, 0);
  }
}

const balanced: SimulationCosts = { chunks: { forward: 1, backward: 2.5, weight: 1, overlapped: 3 } };

function setUp(plan: PipelinePlan, rank: number, costs: SimulationCosts) {
  const pauses = new Pauses();
  const device = new QueueDevice(pauses, 2 ** 24);
  return { pauses, device, model: new PacedModel({ plan, rank, device, costs, shape: [4, 8] }) };
}

/** What the chunks of an action pause, forwards and back as the executor has them. */
function secondsOf(plan: PipelinePlan, rank: number, action: Action, costs: SimulationCosts): number {
  const { pauses, device, model } = setUp(plan, rank, costs);
  using _scope = device.scope();
  const parts = action.kind === "overlapped" ? (["forward", "backward"] as const) : ([action.kind] as const);
  let total = 0;
  for (const [i, chunk] of chunksOf(action).entries()) {
    using tape = new Tape(device);
    const isLast = stageOf(plan, { rank, chunk }) === plan.stages - 1;
    const output = model.forward(chunk, null, tape);
    expect(output === null).toBe(isLast);
    const forward = pauses.sum;
    if (output !== null) tape.seed(output.residual, output.residual);
    pauses.taken.length = 0;
    using bundle = tape.backwardInput();
    const input = pauses.sum;
    pauses.taken.length = 0;
    bundle.run();
    const weight = pauses.sum;
    pauses.taken.length = 0;
    total += { forward, backward: input + weight, backwardInput: input, backwardWeight: weight }[parts[i]!];
  }
  return total;
}

describe("a paced model", () => {
  test.each(["1f1b", "zb", "dualpipe", "dualpipev"] as const)(
    "pauses for every action as long as the simulator takes for it: %s",
    (schedule) => {
      const plan = planSchedule(schedule, { ranks: 2, microBatches: 4 });
      const durations = actionDurations(balanced, plan);
      for (const rank of [0, 1]) {
        for (const action of plan.actions[rank]!) {
          // A chunk that is half of a pair forwards is no half of one backwards: each pass is scaled by its own action.
          expect(secondsOf(plan, rank, action, balanced)).toBeCloseTo(durations(rank, action), 5);
        }
      }
    },
  );

  test("takes the costs of its own stages, and the pace of its own rank", () => {
    const plan = planSchedule("1f1b", { ranks: 2, microBatches: 2 });
    const costs: SimulationCosts = {
      chunks: [1, 3].map((forward) => ({
        forward,
        backward: 2 * forward,
        weight: forward,
        overlapped: 3 * forward,
      })),
      pace: [1, 2],
    };
    const forward = (rank: number): number => {
      const action = plan.actions[rank]!.find(({ kind }) => kind === "forward")!;
      return secondsOf(plan, rank, action, costs);
    };
    expect([forward(0), forward(1)]).toEqual([1, 6]);
  });

  test("says what crosses a boundary, and gives it that shape", () => {
    const plan = planSchedule("1f1b", { ranks: 2, microBatches: 2 });
    const { model, device } = setUp(plan, 0, balanced);
    using _scope = device.scope();
    using tape = new Tape(device);
    const { boundary } = model;
    const { residual, update } = model.forward({ module: 0, direction: 0, microBatch: 0 }, null, tape)!;
    expect([residual.shape, update!.shape]).toEqual([boundary.shape, boundary.shape]);
    expect([residual.dtype, update!.dtype]).toEqual([boundary.residual, boundary.update]);
  });

  test("with experts sends a dispatch and a combine for each layer, there and back, and pauses no longer", () => {
    const plan = planDualPipe({ ranks: 2, microBatches: 4 });
    const pauses = new Pauses();
    const device = new QueueDevice(pauses, 2 ** 24);
    // Over a queue that only counts, messages go nowhere.
    const group = QueueCommunicator.world(device, { abort: () => undefined }, 0, 2);
    const experts = { group, layers: 3, bytes: 4096 };
    const model = new PacedModel({ plan, rank: 0, device, costs: balanced, shape: [4, 8], experts });
    using _scope = device.scope();
    using tape = new Tape(device);
    const alone = plan.actions[0]!.find(({ kind }) => kind === "forward") as Extract<
      Action,
      { kind: "forward" }
    >;
    const output = model.forward(alone.chunk, null, tape)!;
    expect(pauses.sum).toBeCloseTo(1, 5);
    // To the one other rank: the counts before each dispatch, the dispatch, the combine.
    expect(pauses.sent).toEqual([1024, 4096, 4096, 1024, 4096, 4096, 1024, 4096, 4096]);
    pauses.sent.length = 0;
    tape.seed(output.residual, output.residual);
    tape.backward();
    expect(pauses.sent).toEqual(Array(6).fill(4096));
  });
});
