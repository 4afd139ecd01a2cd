/**
 * `minke bench serve`: a contestant that obeys lines, in a process of its own, as bench/peers/torch_v3.py does.
 *
 * It says {"ready": true, ...} once it is warm; "step N" is answered with {"seconds", "tokens", "loss", "peakRssBytes"},
 * "peak S" with the register peak measured for S seconds; "quit" or the end of the input ends it. Two contestants
 * that take turns see the same disturbances, and each has a memory of its own to be measured.
 */
import { createInterface } from "node:readline";
import { type OpenDevice, version } from "../../api/index.ts";
import { openProduct } from "./product.ts";
import type { BenchFlags } from "./row.ts";
import { peakRssBytes, TimedTraining } from "./workload.ts";

/** Steps before the first measured one: pages are committed and code is compiled. */
const WARM_UP = 2;

type Answer = Readonly<Record<string, string | number | boolean | null>>;

interface Contestant {
  readonly settings: Answer;
  /** @param count  steps */
  step(count: number): Promise<Answer>;
}

export async function serveBench(opened: OpenDevice, flags: BenchFlags): Promise<void> {
  const say = (answer: Answer): void => void process.stdout.write(`${JSON.stringify(answer)}\n`);
  const contestant = flags.preset === "gemm" ? openGemm(opened, flags) : openTraining(opened, flags);
  await contestant.step(WARM_UP);
  say({
    ready: true,
    minke: version,
    node: process.version,
    kernels: opened.native?.isa ?? "reference",
    threads: opened.threads,
    ...contestant.settings,
  });
  for await (const line of createInterface({ input: process.stdin })) {
    const [word, number] = line.trim().split(/\s+/);
    const value = Number(number);
    if (word === "quit") return;
    if (word === "step" && Number.isSafeInteger(value) && value > 0) say(await contestant.step(value));
    else if (word === "peak" && value > 0)
      say({ flopsPerSecond: (await opened.native?.peak(flags.precision, value)) ?? null });
    else say({ error: `cannot read ${JSON.stringify(line)}: say "step N", "peak SECONDS" or "quit"` });
  }
}

function openTraining(opened: OpenDevice, flags: BenchFlags): Contestant {
  const training = new TimedTraining(opened, flags);
  const { tokensPerStep, flopsPerStep, parameters } = training;
  return {
    settings: { tokensPerStep, flopsPerStep, parameters },
    async step(count) {
      let [seconds, javascriptSeconds, loss] = [0, 0, Number.NaN];
      for (let i = 0; i < count; i++) {
        const timed = await training.step();
        seconds += timed.seconds;
        javascriptSeconds += timed.javascriptSeconds ?? Number.NaN;
        loss = timed.loss;
      }
      const tokens = count * tokensPerStep;
      return { seconds, tokens, loss, javascriptSeconds, peakRssBytes: peakRssBytes() };
    },
  };
}

function openGemm(opened: OpenDevice, flags: BenchFlags): Contestant {
  const { flops, run } = openProduct(opened.device, flags.precision, 2048, 2048, 1024);
  return {
    settings: { flopsPerStep: flops },
    async step(count) {
      await opened.device.drain();
      const started = performance.now();
      for (let i = 0; i < count; i++) run();
      await opened.device.drain();
      return { seconds: (performance.now() - started) / 1000, peakRssBytes: peakRssBytes() };
    },
  };
}
