import { describe, expect, test } from "vitest";
import { makeTinyModel, type TinyModel, tinyConfig } from "../../test/support/tinyModel.ts";
import { ContextLengthError, NonFiniteError } from "../base/index.ts";
import type { ModelConfig, Pass } from "../model/index.ts";
import { QueueDevice, ReferenceBackend } from "../tensor/index.ts";
import type { Runner } from "./decoder.ts";
import { type GenerateOptions, generateIds } from "./generate.ts";

function makeRunner(changes: Partial<ModelConfig> = {}): TinyModel {
  const device = new QueueDevice(new ReferenceBackend(), 2 ** 28);
  // Larger first weights than usual: an untrained model should have opinions.
  return makeTinyModel(device, tinyConfig({ initializerRange: 0.5, ...changes }));
}

async function ids(runner: Runner, prompt: ArrayLike<number>, options: GenerateOptions): Promise<number[]> {
  const made: number[] = [];
  for await (const id of generateIds(runner, prompt, options)) made.push(id);
  return made;
}

/** The most likely next token by a whole pass over the text, without any cache. */
async function nextByWholePass(
  { device, model, rope, precision, config }: TinyModel,
  text: number[],
): Promise<number> {
  let read: Promise<ArrayLike<number>>;
  {
    using _scope = device.scope();
    const pass: Pass = {
      positions: device.from(
        text.map((_, i) => i),
        [text.length],
        "i32",
      ),
      seqOffsets: device.from([0, text.length], [2], "i32"),
      rope,
      precision,
      cache: null,
      balanceAlpha: null,
      dispatch: null,
    };
    const { normed } = model.forward(device.from(text, [text.length], "i32"), pass);
    read = model.logits(normed, pass).read();
  }
  const last = Array.from(await read).slice(-config.vocabSize);
  return last.indexOf(Math.max(...last));
}

describe("generateIds", () => {
  const prompt = [5, 17, 3];

  test("gives, at temperature 0, the tokens that whole passes find most likely", async () => {
    const runner = makeRunner();
    const text = [...prompt];
    for (let i = 0; i < 8; i++) text.push(await nextByWholePass(runner, text));
    expect(await ids(runner, prompt, { maxTokens: 8 })).toEqual(text.slice(3));
  });

  test("draws anew for every token, though each has the same chances as before", async () => {
    const runner = makeRunner();
    const { lmHead } = runner.model;
    lmHead.master.write(new Float64Array(lmHead.size));
    lmHead.repack();
    const made = await ids(runner, prompt, { maxTokens: 12, temperature: 1, seed: 3 });
    // Twelve draws from 48 equal chances: five or fewer different ones come three times in a million.
    expect(new Set(made).size).toBeGreaterThan(5);
    expect(await ids(runner, prompt, { maxTokens: 12, temperature: 1, seed: 4 })).not.toEqual(made);
  });

  test("gives exactly as many tokens as it is asked for, none included", async () => {
    const runner = makeRunner();
    for (const maxTokens of [0, 1, 2, 7])
      expect(await ids(runner, prompt, { maxTokens })).toHaveLength(maxTokens);
  });

  test("gives the beginning of a longer answer when it is asked for less", async () => {
    const runner = makeRunner();
    const options = { temperature: 1, seed: 4 };
    const long = await ids(runner, prompt, { ...options, maxTokens: 10 });
    expect(await ids(runner, prompt, { ...options, maxTokens: 4 })).toEqual(long.slice(0, 4));
  });

  test("ends where the model's context ends", async () => {
    const runner = makeRunner();
    const { maxPositionEmbeddings } = runner.config;
    expect(await ids(runner, prompt, { maxTokens: 1000 })).toHaveLength(
      maxPositionEmbeddings - prompt.length,
    );
    const longest = Array.from({ length: maxPositionEmbeddings - 1 }, (_, i) => i % 40);
    expect(await ids(runner, longest, { maxTokens: 1000 })).toHaveLength(1);
  });

  test("ends before a stop token, which it does not give out", async () => {
    const runner = makeRunner();
    const free = await ids(runner, prompt, { maxTokens: 10, temperature: 1, seed: 2 });
    const stop = free[4]!;
    const first = free.indexOf(stop);
    const stopped = await ids(runner, prompt, {
      maxTokens: 10,
      temperature: 1,
      seed: 2,
      stopIds: [47, stop],
    });
    expect(stopped).toEqual(free.slice(0, first).filter((id) => id !== 47));
  });

  test("draws the same tokens for the same seed, and others for another", async () => {
    const runner = makeRunner();
    const drawn = (seed: number): Promise<number[]> =>
      ids(runner, prompt, { maxTokens: 12, temperature: 1, seed });
    expect(await drawn(7)).toEqual(await drawn(7));
    const answers = await Promise.all([1, 2, 3, 4].map(async (seed) => (await drawn(seed)).join()));
    expect(new Set(answers).size).toBeGreaterThan(1);
  });

  test("draws only the most likely tokens where topK or topP are small", async () => {
    const runner = makeRunner();
    const greedy = await ids(runner, prompt, { maxTokens: 6 });
    expect(await ids(runner, prompt, { maxTokens: 6, temperature: 1, topK: 1, seed: 3 })).toEqual(greedy);
    expect(await ids(runner, prompt, { maxTokens: 6, temperature: 1, topP: 1e-6, seed: 3 })).toEqual(greedy);
  });

  test("runs two answers at once as it runs them alone", async () => {
    const runner = makeRunner();
    const options = (seed: number): GenerateOptions => ({ maxTokens: 8, temperature: 1, seed });
    const alone = [await ids(runner, prompt, options(1)), await ids(runner, [9], options(2))];
    const together = await Promise.all([ids(runner, prompt, options(1)), ids(runner, [9], options(2))]);
    expect(together).toEqual(alone);
  });
});

describe("a signal", () => {
  test("that has come before the first token costs no pass through the model", async () => {
    const runner = makeRunner();
    const before = runner.device.arena.highWaterBytes;
    const stopped = ids(runner, [1, 2], { maxTokens: 4, signal: AbortSignal.abort(new Error("enough")) });
    await expect(stopped).rejects.toThrow("enough");
    expect(runner.device.arena.highWaterBytes).toBe(before);
  });

  test("ends the text where it meets it, and the cache is given back", async () => {
    const runner = makeRunner();
    const before = runner.device.arena.liveBytes;
    const stopping = new AbortController();
    const made: number[] = [];
    const generating = (async () => {
      for await (const id of generateIds(runner, [1, 2], { maxTokens: 20, signal: stopping.signal })) {
        made.push(id);
        if (made.length === 3) stopping.abort(new Error("enough"));
      }
    })();
    await expect(generating).rejects.toThrow("enough");
    expect(made).toHaveLength(3);
    expect(runner.device.arena.liveBytes).toBe(before);
  });
});

describe("memory", () => {
  test("is what it was after a whole answer, and after one that nobody wanted to the end", async () => {
    const runner = makeRunner();
    const { arena } = runner.device;
    const before = [arena.liveBytes, arena.liveCount];
    await ids(runner, [3], { maxTokens: 5 });
    expect([arena.liveBytes, arena.liveCount]).toEqual(before);
    for await (const _ of generateIds(runner, [3], { maxTokens: 5 })) break;
    expect([arena.liveBytes, arena.liveCount]).toEqual(before);
  });
});

describe("a model that is broken", () => {
  test("says so instead of giving out an id, and gives its cache back", async () => {
    const runner = makeRunner();
    const gain = runner.model.norm.master;
    gain.write(Array.from({ length: gain.size }, () => Number.NaN));
    const before = runner.device.arena.liveBytes;
    for (const temperature of [0, 1])
      await expect(ids(runner, [3], { maxTokens: 2, temperature })).rejects.toThrow(NonFiniteError);
    expect(runner.device.arena.liveBytes).toBe(before);
  });
});

describe("a prompt that cannot be continued is refused:", () => {
  test("an empty one", async () => {
    const refused = ids(makeRunner(), [], { maxTokens: 1 });
    await expect(refused).rejects.toThrow(ContextLengthError);
    await expect(refused).rejects.toThrow(/a prompt of 0 tokens[\s\S]*fix: give a prompt/);
  });

  test("one that leaves no room", async () => {
    const refused = ids(makeRunner(), new Array<number>(32).fill(1), { maxTokens: 1 });
    await expect(refused).rejects.toThrow(ContextLengthError);
    await expect(refused).rejects.toThrow(
      /a prompt of 32 tokens cannot be continued[\s\S]*shorten the prompt/,
    );
  });

  test("one with an id that the vocabulary does not have, before it could spoil the queue for all others", async () => {
    const runner = makeRunner();
    for (const bad of [48, -1, 1.5, Number.NaN])
      await expect(ids(runner, [3, bad], { maxTokens: 2 })).rejects.toThrow(
        /id .* lies outside the vocabulary of 48/,
      );
    expect(await ids(runner, [3, 4], { maxTokens: 2 })).toHaveLength(2);
  });
});
