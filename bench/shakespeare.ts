/**
 * Loss against time on tinyshakespeare: five seeds of ours, nanoGPT's CPU recipe in between, one longer run.
 *
 *     npm run bench:shakespeare -- --text tinyshakespeare.txt
 *     npm run bench:shakespeare -- --text tinyshakespeare.txt --seeds 2 --only short
 *
 * The text is that of Karpathy's char-rnn (data/tinyshakespeare/input.txt, 1,115,394 bytes of ASCII); nothing is
 * downloaded here. Its first nine tenths train, the rest is held out, as everyone does; tokens are bytes, so a nat per
 * byte is a nat per character. The clock runs from the start of the process to the end of the first evaluation that
 * meets the target, over the whole held-out split in windows that do not overlap, each byte once, its own time counted.
 * What runs is `minke train`, as a user types it.
 */
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { appendRow, describePlace, type ResultRow, resultFile } from "./results.ts";

/** What is raced for, and the number of steps that gets there: the schedule ends with the last step. */
interface Race {
  readonly name: "short" | "long";
  readonly target: number;
  /** The bar. */
  readonly limitSeconds: number;
  readonly steps: number;
  readonly settings: readonly string[];
}

const RACES: readonly Race[] = [
  { name: "short", target: 1.8857, limitSeconds: 25, steps: 420, settings: [] },
  {
    name: "long",
    target: 1.65,
    limitSeconds: 180,
    steps: 1000,
    // With more steps to come, longer rows and a larger batch pay.
    settings: [
      "model.maxPositionEmbeddings=128",
      "batchRows=16",
      "microBatchRows=16",
      "optimizer.learningRate=1e-2",
    ],
  },
];

interface Finish {
  readonly seed: number;
  /** To the end of the first evaluation that met the target; null if none did. */
  readonly seconds: number | null;
  /** Nats per byte, of the last evaluation. */
  readonly loss: number;
  /** Of all threads until the last evaluation: what stays the same when other programs run. Null where unknown. */
  readonly processorSeconds: number | null;
}

const root = dirname(import.meta.dirname);
const { values: flags } = parseArgs({
  options: {
    text: { type: "string" },
    seeds: { type: "string", default: "5" },
    "long-seeds": { type: "string", default: "1" },
    only: { type: "string" },
    threads: { type: "string" },
  },
});
await main();

async function main(): Promise<void> {
  const text = readText(flags.text);
  const place = describePlace(root);
  const file = resultFile(root, place);
  const folder = mkdtempSync(join(tmpdir(), "minke-shakespeare-"));
  const say = (row: Omit<ResultRow, "bench">): void => {
    const full = { bench: "shakespeare", ...row };
    appendRow(file, `npm run bench:shakespeare -- --text ${flags.text}`, full, place);
    console.log(JSON.stringify(row));
  };
  try {
    const data = join(folder, "data");
    writeSplit(text, data);
    for (const race of RACES) {
      if (flags.only !== undefined && !flags.only.split(",").includes(race.name)) continue;
      const count = Number(race.name === "short" ? flags.seeds : flags["long-seeds"]);
      const finishes: Finish[] = [];
      for (let seed = 0; seed < count; seed++) {
        finishes.push(await runOurs(race, seed, data, join(folder, `${race.name}-${seed}`)));
        say({ race: race.name, who: "minke", ...finishes.at(-1) });
        // In the middle of ours, so that both meet the same machine.
        if (race.name === "short" && seed === Math.floor(count / 2)) await racePeer(say);
      }
      say({ race: race.name, who: "minke", ...summary(race, finishes) });
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  console.log(`rows in ${relative(root, file)}`);
}

function readText(path: string | undefined): Buffer {
  if (path === undefined || !existsSync(path))
    throw new Error(
      `${path ?? "--text is missing"}: give the path of tinyshakespeare, ` +
        "github.com/karpathy/char-rnn, data/tinyshakespeare/input.txt",
    );
  return readFileSync(path);
}

/** Two documents, of which every second one is held out: `data.validationEvery=2`. */
function writeSplit(text: Buffer, folder: string): void {
  mkdirSync(folder);
  const cut = Math.floor(text.length * 0.9);
  writeFileSync(join(folder, "1-train.txt"), text.subarray(0, cut));
  writeFileSync(join(folder, "2-validation.txt"), text.subarray(cut));
}

async function runOurs(race: Race, seed: number, data: string, run: string): Promise<Finish> {
  const settings = ["data.validationEvery=2", ...race.settings].flatMap((setting) => ["--set", setting]);
  const words = ["train", "--preset", "shakespeare", "--data", data, "--run", run, "--json"];
  const numbers = ["--steps", String(race.steps), "--seed", String(seed)];
  const threads = flags.threads === undefined ? [] : ["--threads", flags.threads];
  let [seconds, processorSeconds]: (number | null)[] = [null, null];
  let loss = Number.NaN;
  const args = [join(root, "bin", "minke.js"), ...words, ...numbers, ...threads, ...settings];
  const started = performance.now();
  await readLines(process.execPath, args, (line, pid) => {
    const event: unknown = JSON.parse(line);
    if (!isEvaluation(event)) return;
    loss = event.bitsPerByte * Math.LN2;
    processorSeconds = processorSecondsOf(pid);
    if (loss <= race.target) seconds ??= (performance.now() - started) / 1000;
  });
  rmSync(run, { recursive: true, force: true });
  return { seed, seconds: seconds ?? null, loss, processorSeconds: processorSeconds ?? null };
}

/** Linux counts in hundredths of a second: fields 14 and 15, counted behind the name in brackets. */
function processorSecondsOf(pid: number): number | null {
  const path = `/proc/${pid}/stat`;
  if (!existsSync(path)) return null;
  const fields = readFileSync(path, "utf8").split(") ").at(-1)?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

function isEvaluation(event: unknown): event is { readonly bitsPerByte: number } {
  return (
    typeof event === "object" && event !== null && "type" in event && event.type === "evaluation.completed"
  );
}

async function racePeer(say: (row: Omit<ResultRow, "bench">) => void): Promise<void> {
  const python = join(root, "bench", "peers", ".venv", "bin", "python");
  if (!existsSync(python)) {
    console.log("nanoGPT's recipe is left out: PyTorch is not set up, bench/peers/setup.sh does it");
    return;
  }
  const script = join(root, "bench", "peers", "nanogpt.py");
  const started = performance.now();
  await readLines(python, [script, flags.text ?? ""], (line) => {
    const record: unknown = JSON.parse(line);
    const seconds = (performance.now() - started) / 1000;
    say({ race: "short", who: "nanoGPT's recipe, PyTorch", ...(record as object), seconds });
  });
}

/** Runs a program and hands over its lines that are JSON. */
async function readLines(
  program: string,
  args: string[],
  onLine: (line: string, pid: number) => void,
): Promise<void> {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
  const code = new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  for await (const line of createInterface({ input: child.stdout }))
    if (line.startsWith("{")) onLine(line, child.pid ?? 0);
  const ended = await code;
  if (ended !== 0) throw new Error(`${program} ${args.join(" ")} ended with ${ended}`);
}

function summary(race: Race, finishes: readonly Finish[]): Omit<ResultRow, "bench"> {
  const seconds = finishes.map((finish) => finish.seconds ?? Number.POSITIVE_INFINITY);
  return {
    target: race.target,
    limitSeconds: race.limitSeconds,
    steps: race.steps,
    meanSeconds: seconds.reduce((sum, value) => sum + value, 0) / seconds.length,
    worstSeconds: Math.max(...seconds),
    worstLoss: Math.max(...finishes.map(({ loss }) => loss)),
    missed: finishes.filter((finish) => finish.seconds === null).length,
  };
}
