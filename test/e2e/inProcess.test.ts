/** The package in a program: trainModel and loadModel return at once, tell by iterating, and obey a signal. */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { loadModel, type RunEvent, type TrainOptions, trainModel } from "../../src/index.ts";
import { scratchFolder } from "../support/scratchFolder.ts";
import { fingerprint } from "../support/shortRun.ts";
import { writeTrainingText } from "../support/trainingText.ts";

async function options(steps: number): Promise<TrainOptions & { readonly run: string }> {
  const folder = await scratchFolder();
  return {
    preset: "unit",
    data: [await writeTrainingText(folder, 100)],
    run: join(folder, "run"),
    steps,
    threads: 1,
    set: ["data.tokenizer=bytes", "batchRows=8", "microBatchRows=8"],
  };
}

async function typesOf(run: AsyncIterable<RunEvent>): Promise<string[]> {
  const types: string[] = [];
  for await (const { type } of run) types.push(type);
  return types;
}

describe("trainModel", () => {
  test("returns at once and tells the run event by event", async () => {
    const wanted = await options(4);
    const started = performance.now();
    const run = trainModel(wanted);
    expect(performance.now() - started).toBeLessThan(100);
    const types = await typesOf(run);
    expect(types[0]).toBe("run.started");
    expect(types.filter((type) => type === "step.completed")).toHaveLength(4);
    expect(types).toContain("run.completed");
    expect(await run.finished).toEqual({ path: wanted.run, isComplete: true });
  });

  test("stops at the signal with a checkpoint, and goes on from it to the planned end", async () => {
    const controller = new AbortController();
    const wanted = await options(30);
    const run = trainModel({ ...wanted, signal: controller.signal });
    let last: RunEvent | undefined;
    for await (const event of run) {
      if (event.type === "step.completed" && event.step === 3) controller.abort();
      if (event.type === "run.interrupted") last = event;
    }
    expect(await run.finished).toEqual({ path: wanted.run, isComplete: false });
    expect(last).toMatchObject({ type: "run.interrupted", signal: "AbortSignal" });
    const resumed = trainModel({ run: wanted.run, resume: true, threads: 1 });
    const types = await typesOf(resumed);
    expect(types[0]).toBe("run.resumed");
    expect((await resumed.finished).isComplete).toBe(true);
  });

  test("trains two models at once in one process, each with the bits that it has alone", async () => {
    const [one, two, alone] = [await options(5), await options(5), await options(5)];
    await Promise.all([trainModel(one).finished, trainModel({ ...two, seed: 3 }).finished]);
    await trainModel({ ...alone, seed: 3 }).finished;
    expect(await fingerprint(two.run, 5)).toEqual(await fingerprint(alone.run, 5));
    expect(await fingerprint(one.run, 5)).not.toEqual(await fingerprint(alone.run, 5));
  });

  test("obeys a signal that comes as the run is resumed, and keeps its checkpoint", async () => {
    const wanted = await options(6);
    await trainModel({ ...wanted, set: [...wanted.set!, "checkpoint.everySteps=3"] }).finished;
    const controller = new AbortController();
    const change = ["steps=9"];
    // A sink hears of it before the loop goes on.
    const sink = { emit: ({ type }: RunEvent) => void (type === "run.resumed" && controller.abort()) };
    const again = { run: wanted.run, resume: true, threads: 1, set: change, signal: controller.signal, sink };
    expect(await trainModel(again).finished).toEqual({ path: wanted.run, isComplete: false });
    const types = await typesOf(trainModel({ run: wanted.run, resume: true, threads: 1 }));
    expect(types.filter((type) => type === "step.completed")).toHaveLength(3);
  });

  test("whose signal was given before it began does no step", async () => {
    const wanted = await options(3);
    const run = trainModel({ ...wanted, signal: AbortSignal.abort("changed my mind") });
    const types = await typesOf(run);
    expect(types).toContain("run.interrupted");
    expect(types).not.toContain("step.completed");
    expect((await run.finished).isComplete).toBe(false);
  });

  test("throws what went wrong to whoever iterates and to whoever awaits the end", async () => {
    const wanted = { ...(await options(3)), data: ["nowhere.txt"] };
    const run = trainModel(wanted);
    await expect(typesOf(run)).rejects.toMatchObject({ code: "ERR_DATA" });
    await expect(run.finished).rejects.toMatchObject({ code: "ERR_DATA" });
    const unread = trainModel({ ...wanted, resume: true });
    await expect(unread.finished).rejects.toMatchObject({ code: "ERR_USAGE" });
  });
});

describe("loadModel", () => {
  test("gives a model that streams pieces, the same for the same seed, until its signal", async () => {
    const wanted = await options(4);
    await trainModel(wanted).finished;
    const model = await loadModel(wanted.run, { threads: 1 });
    try {
      const texts: string[] = [];
      for (let i = 0; i < 2; i++) {
        const pieces: string[] = [];
        for await (const piece of model.generate("The ", { maxTokens: 12, seed: 5 })) pieces.push(piece);
        expect(pieces.length).toBeGreaterThan(1);
        texts.push(pieces.join(""));
      }
      expect(texts[1]).toBe(texts[0]);
      const controller = new AbortController();
      const stopped = (async () => {
        for await (const _ of model.generate("The ", { maxTokens: 24, signal: controller.signal })) {
          controller.abort(new Error("enough"));
        }
      })();
      await expect(stopped).rejects.toThrow("enough");
    } finally {
      await model.dispose();
    }
  });
});
