/**
 * Loss against time on tinyshakespeare: five seeds of ours, nanoGPT's CPU recipe in between, one longer run.
 *
 *     npm run bench:shakespeare -- --text tinyshakespeare.txt
 *     npm run bench:shakespeare -- --text tinyshakespeare.txt --seeds 2 --only short --threads 2
 *
 * The text is that of Karpathy's char-rnn (data/tinyshakespeare/input.txt, 1,115,394 bytes of ASCII); nothing is
 * downloaded here. Its first nine tenths train, the rest is held out, as everyone does; tokens are bytes, so a nat per
 * byte is a nat per character. The clock runs from the start of the process to the end of the first evaluation that
 * meets the target, over the whole held-out split in windows that do not overlap, each byte once, its own time counted.
 * What runs is `minke train`, as a user types it. Ctrl-C ends the program that runs and keeps the rows so far.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { howToSetUp, isSetUp, TORCH } from "../src/cli/bench/peerSetup.ts";
import { runChild } from "./child.ts";
import { parseRaceFlags, type RaceFlags, type RaceName } from "./raceFlags.ts";
import { appendRow, describePlace, type ResultRow, resultFile } from "./results.ts";

/** What is raced for, and the number of steps that gets there: the schedule ends with the last step. */
interface Race {
  readonly name: RaceName;
  readonly target: number;
  /** The bar. */
  readonly limitSeconds: number;
  readonly steps: number;
  readonly settings: readonly string[];
}

const RACES: readonly Race[] = [
  { name: "short", target: 1.8857, limitSeconds: 25, steps: 400, settings: [] },
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

/** Somebody wants to stop: not a failure. */
class Stopped extends Error {}

const root = dirname(import.meta.dirname);
process.exitCode = await main().catch((error: unknown) => {
  if (error instanceof Stopped) return 130;
  console.error(error instanceof Error ? error.message : error);
  return 1;
});

async function main(): Promise<number> {
  const flags = parseRaceFlags(process.argv.slice(2));
  const place = describePlace(root);
  const file = resultFile(root, place);
  const folder = mkdtempSync(join(tmpdir(), "minke-shakespeare-"));
  const say = (row: Omit<ResultRow, "bench">): void => {
    appendRow(file, flags.command, { bench: "shakespeare", ...row }, place);
    console.log(JSON.stringify(row));
  };
  try {
    const data = join(folder, "data");
    writeSplit(readFileSync(flags.text), data);
    for (const race of RACES) await runRace(race, flags, data, folder, say);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  console.log(`rows in ${relative(root, file)}`);
  return 0;
}

async function runRace(
  race: Race,
  flags: RaceFlags,
  data: string,
  folder: string,
  say: (row: Omit<ResultRow, "bench">) => void,
): Promise<void> {
  const count = flags.seeds[race.name];
  if (count === 0) return;
  const finishes: Finish[] = [];
  for (let seed = 0; seed < count; seed++) {
    finishes.push(await runOurs(race, seed, flags, data, join(folder, `${race.name}-${seed}`)));
    say({ race: race.name, who: "minke", ...finishes.at(-1) });
    // In the middle of ours, so that both meet the same machine.
    if (race.name === "short" && seed === Math.floor(count / 2)) await racePeer(flags, say);
  }
  say({ race: race.name, who: "minke", ...summary(race, finishes) });
}

/** Two documents, of which every second one is held out: `data.validationEvery=2`. */
function writeSplit(text: Buffer, folder: string): void {
  mkdirSync(folder);
  const cut = Math.floor(text.length * 0.9);
  writeFileSync(join(folder, "1-train.txt"), text.subarray(0, cut));
  writeFileSync(join(folder, "2-validation.txt"), text.subarray(cut));
}

async function runOurs(
  race: Race,
  seed: number,
  flags: RaceFlags,
  data: string,
  run: string,
): Promise<Finish> {
  const settings = ["data.validationEvery=2", ...race.settings].flatMap((setting) => ["--set", setting]);
  const words = ["train", "--preset", "shakespeare", "--data", data, "--run", run, "--json"];
  const numbers = ["--steps", String(race.steps), "--seed", String(seed)];
  let [seconds, processorSeconds]: (number | null)[] = [null, null];
  let loss = Number.NaN;
  const args = [join(root, "bin", "minke.js"), ...words, ...numbers, ...threadWords(flags), ...settings];
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

async function racePeer(flags: RaceFlags, say: (row: Omit<ResultRow, "bench">) => void): Promise<void> {
  const peers = join(root, "bench", "peers");
  if (!isSetUp(TORCH, peers)) {
    console.log(`nanoGPT's recipe is left out: ${howToSetUp(TORCH)}`);
    return;
  }
  const python = join(peers, ".venv", "bin", "python");
  const started = performance.now();
  await readLines(python, [join(peers, "nanogpt.py"), flags.text, ...threadWords(flags)], (line) => {
    const record: unknown = JSON.parse(line);
    const seconds = (performance.now() - started) / 1000;
    say({ race: "short", who: "nanoGPT's recipe, PyTorch", ...(record as object), seconds });
  });
}

/** The same for both sides. */
function threadWords({ threads }: RaceFlags): readonly string[] {
  return threads === null ? [] : ["--threads", String(threads)];
}

/** Runs a program where this one was started, and hands over its lines that are JSON. */
async function readLines(
  program: string,
  args: readonly string[],
  onLine: (line: string, pid: number) => void,
): Promise<void> {
  const { code, isStopped } = await runChild(program, args, process.cwd(), (line, pid) => {
    if (line.startsWith("{")) onLine(line, pid);
  });
  if (isStopped) throw new Stopped();
  if (code !== 0) throw new Error(`${program} ${args.join(" ")} ended with ${code}`);
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
