import { expect, test } from "vitest";
import { planZeroBubble } from "../schedule/zeroBubble.ts";
import { simulate } from "../simulate/simulate.ts";
import { simulatedSpans } from "./simulated.ts";

const chunks = { forward: 1, backward: 2, weight: 0.5, overlapped: 2.5 };

test("a simulated plan becomes computing spans with the actions' names, times and chunks", () => {
  const plan = planZeroBubble({ ranks: 1, microBatches: 1 });
  const [only] = simulatedSpans(plan, simulate(plan, { chunks }));
  const chunk = { stage: 0, module: 0, direction: 0, microBatch: 0 };
  expect(only).toEqual({
    rank: 0,
    spans: [
      { name: "F0", category: "compute", start: 0, end: 1, chunks: [{ pass: "forward", ...chunk }] },
      { name: "Bi0", category: "compute", start: 1, end: 2.5, chunks: [{ pass: "backwardInput", ...chunk }] },
      { name: "W0", category: "compute", start: 2.5, end: 3, chunks: [{ pass: "backwardWeight", ...chunk }] },
    ],
  });
});
