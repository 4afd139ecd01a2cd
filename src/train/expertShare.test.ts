/** What one of several ranks that share the experts holds, and what cannot be shared. */
import { describe, expect, test } from "vitest";
import { EOS_ID, makeSession, PAD_ID, tinyTrainConfig } from "../../test/support/tinyTraining.ts";
import { ConfigError } from "../base/index.ts";
import { inProcess, type Layout } from "../parallel/index.ts";
import type { TrainConfig } from "./config.ts";
import { estimateStep } from "./estimate.ts";
import { TrainSession } from "./session.ts";

function sessionOf(config: TrainConfig, ep: number): TrainSession {
  const [communicator] = inProcess(ep, { backend: "reference", limitBytes: 2 ** 30 });
  return new TrainSession(
    communicator!.device,
    config,
    { padId: PAD_ID, eosId: EOS_ID },
    { communicator: communicator!, zero1: false, ep },
  );
}

describe("a rank that shares the experts", () => {
  test("draws its share of the weights as one process draws all", async () => {
    const config = tinyTrainConfig({ gradientShards: 2, microBatchRows: 1 });
    const shared = sessionOf(config, 2);
    shared.initialize();
    const whole = makeSession(config);
    const count = config.model.nRoutedExperts / 2;
    for (const { weight } of shared.factory.experts) {
      const all = whole.factory.parameters.find(({ path }) => path === weight.path)!;
      expect(weight.shape).toEqual([count, ...all.shape.slice(1)]);
      expect(await weight.master.read()).toEqual(await all.master.rows(0, count).read());
    }
  });

  test("takes less for weights and moments, and what all senders' gradients take", async () => {
    const config = tinyTrainConfig({ gradientShards: 2, microBatchRows: 1 });
    const layout: Layout = { dp: 2, ep: 1, pp: 1, zero1: false, schedule: "dualpipe" };
    const [each, shared] = await Promise.all([
      estimateStep(config, { layout, rank: 0 }),
      estimateStep(config, { layout: { ...layout, ep: 2 }, rank: 1 }),
    ]);
    expect(shared.parts.weights).toBeLessThan(each.parts.weights);
    expect(shared.parts.moments).toBeLessThan(each.parts.moments);
    expect(shared.parts.gradients).toBe(each.parts.gradients);
  });

  test("refuses experts that do not divide, and one FP8 scale for what no rank has whole", () => {
    const config = tinyTrainConfig({ gradientShards: 4, microBatchRows: 1 });
    const refused = (changed: TrainConfig, ep: number): unknown => {
      try {
        sessionOf(changed, ep);
      } catch (error) {
        return error;
      }
      return null;
    };
    const uneven = refused({ ...config, model: { ...config.model, nRoutedExperts: 6 } }, 4);
    expect(uneven).toBeInstanceOf(ConfigError);
    expect(String(uneven)).toContain("6 routed experts cannot be shared by 4 ranks");
    const scaled = refused({ ...config, precision: "fp8", fp8: { ...config.fp8, scaling: "tensor" } }, 2);
    expect(scaled).toBeInstanceOf(ConfigError);
    expect(String(scaled)).toContain("one scale for a whole tensor cannot be had");
  });
});
