/** A run's memory does not grow with its steps: neither the tensors, nor what JavaScript holds, nor the process. */
import { join } from "node:path";
import { expect, test } from "vitest";
import { collectGarbage } from "../../src/api/collectGarbage.ts";
import { trainModel } from "../../src/index.ts";
import { nativeIsMissing } from "../support/native.ts";
import { scratchFolder } from "../support/scratchFolder.ts";
import { writeTrainingText } from "../support/trainingText.ts";

const MB = 1e6;
const [WARM, LAST] = [60, 160];

test.skipIf(nativeIsMissing)(
  `from step ${WARM} to step ${LAST} of micro, evaluations and samples included, nothing piles up`,
  {
    timeout: 120_000,
  },
  async () => {
    const folder = await scratchFolder();
    const run = trainModel({
      preset: "micro",
      data: [await writeTrainingText(folder)],
      run: join(folder, "run"),
      steps: LAST,
      set: [
        ...["data.tokenizer=bytes", "rowLength=32", "batchRows=8", "microBatchRows=4"],
        ...["evaluate.everySteps=20", "evaluate.rows=8", "checkpoint.everySteps=0"],
        ...["sample.everySteps=20", 'sample.prompts=["The whale"]', "sample.maxTokens=8"],
      ],
    });
    const seen = new Map<number, { rss: number; heap: number; live: number }>();
    for await (const event of run) {
      if (event.type !== "step.completed" || (event.step !== WARM && event.step !== LAST)) continue;
      collectGarbage();
      const { rss, heapUsed, arrayBuffers } = process.memoryUsage();
      seen.set(event.step, { rss, heap: heapUsed + arrayBuffers, live: event.liveBytes });
    }
    const [warm, last] = [seen.get(WARM)!, seen.get(LAST)!];
    expect(last.live).toBe(warm.live);
    // Handles and closures of one step that stay behind are 20 kB or more, so a hundred of them are seen.
    expect((last.heap - warm.heap) / MB).toBeLessThan(1);
    // What malloc keeps for itself varies by megabytes; a buffer per step that nobody frees would be many more.
    expect((last.rss - warm.rss) / MB).toBeLessThan(12);
  },
);
