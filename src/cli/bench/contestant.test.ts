import { spawnSync } from "node:child_process";
import { getEventListeners } from "node:events";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, onTestFinished, test } from "vitest";
import { BaseError } from "../../base/index.ts";
import { Contestant, type ContestantSpec, isFaultOf } from "./contestant.ts";

/** A real process that runs `script`; `answer(f)` in it calls f with each line of its input. */
function spec(script: string, changes: Partial<ContestantSpec> = {}): ContestantSpec {
  const prelude = `
    const say = (value) => console.log(JSON.stringify(value));
    const answer = (f) => require("node:readline").createInterface({ input: process.stdin }).on("line", f);`;
  return {
    name: "the peer",
    command: process.execPath,
    args: ["-e", prelude + script],
    readyTimeoutMs: 20_000,
    answerTimeoutMs: 20_000,
    ...changes,
  };
}

async function start(script: string, changes: Partial<ContestantSpec> = {}): Promise<Contestant> {
  const contestant = await Contestant.start(spec(script, changes), new AbortController().signal);
  onTestFinished(() => contestant[Symbol.dispose]());
  return contestant;
}

async function failureOf(promise: Promise<unknown>): Promise<BaseError> {
  const error: unknown = await promise.then(
    () => null,
    (reason: unknown) => reason,
  );
  if (!BaseError.isInstance(error)) throw new Error(`no failure of ours: ${String(error)}`);
  return error;
}

/** Waits up to ten seconds for its end. */
async function isAlive(pid: number): Promise<boolean> {
  for (let i = 0; i < 200; i++) {
    try {
      process.kill(pid, 0);
    } catch {
      return false;
    }
    await sleep(50);
  }
  return true;
}

describe("Contestant", () => {
  test("waits until the program is ready, and hears nothing but lines of JSON", async () => {
    const peer = await start(`
      console.log("importing..."); console.log("{ broken");
      setTimeout(() => { say({ ready: true, version: "1.2" }); answer((line) => { console.log("noise"); say({ seconds: 0.5, line }); }); }, 300);`);
    expect(peer.settings).toEqual({ ready: true, version: "1.2" });
    expect(await peer.step(3)).toEqual({ seconds: 0.5, line: "step 3" });
    expect(await peer.ask("peak 1")).toMatchObject({ line: "peak 1" });
  });

  test("one that ends before it is ready shows its exit code and the end of its standard error", async () => {
    const failing = start(
      `console.error("x".repeat(5000)); console.error("No module named torch"); process.exit(3);`,
    );
    const { what, why, fix } = await failureOf(failing);
    expect(what).toBe("the peer ended before it was ready (exit code 3)");
    expect(why).toMatch(/^x+\nNo module named torch$/);
    expect(why.length).toBeLessThanOrEqual(2000);
    expect(fix).toContain(`run it by hand: ${process.execPath} -e`);
  });

  test("one that ends at a step says at which, and every later question fails at once", async () => {
    const peer = await start(
      `say({ ready: true }); answer(() => { console.error("out of memory"); process.exit(9); });`,
    );
    const { what, why } = await failureOf(peer.step(1));
    expect([what, why]).toEqual(['the peer ended at "step 1" (exit code 9)', "out of memory"]);
    expect(peer.hasEnded).toBe(true);
    expect((await failureOf(peer.ask("step 1"))).what).toContain("(exit code 9)");
  });

  test("one that answers without seconds, or not at all, or does not exist, fails with what it said", async () => {
    const confused = await start(`say({ ready: true }); answer(() => say({ error: "cannot read it" }));`);
    const failure = await failureOf(confused.step(1));
    expect(failure.what).toContain('answered {"error":"cannot read it"}');
    expect(failure.why).toBe("cannot read it");
    const silent = await start(`say({ ready: true }); answer(() => 0);`, { answerTimeoutMs: 100 });
    expect((await failureOf(silent.step(1))).what).toBe('the peer said nothing for 100 ms at "step 1"');
    expect((await failureOf(start("", { command: "/nowhere/python" }))).what).toContain("ENOENT");
  });

  test("stopping ends it and the processes that it started, even before it is ready", async () => {
    const stop = new AbortController();
    const script = `
      const worker = require("node:child_process").spawn(process.execPath, ["-e", "setInterval(() => 0, 1000)"]);
      require("node:fs").writeSync(1, JSON.stringify({ ready: true, worker: worker.pid, own: process.pid }) + "\\n");
      setInterval(() => 0, 1000);`;
    const peer = await Contestant.start(spec(script), stop.signal);
    const waiting = failureOf(peer.step(1));
    const unready = failureOf(Contestant.start(spec("setInterval(() => 0, 1000)"), stop.signal));
    stop.abort();
    expect((await waiting).what).toContain("SIGTERM");
    expect((await unready).what).toBe("the peer ended before it was ready (SIGTERM)");
    for (const name of ["own", "worker"]) expect(await isAlive(Number(peer.settings[name]))).toBe(false);
    await expect(Contestant.start(spec(""), stop.signal)).rejects.toThrow("aborted");
  });

  test("one that was too late is ended: its late answer is not taken for that to the next question", async () => {
    const late = await start(
      `let n = 0; say({ ready: true, own: process.pid });
       answer((line) => setTimeout(() => say({ seconds: ++n, line }), n === 0 ? 600 : 0));`,
      { answerTimeoutMs: 200 },
    );
    expect((await failureOf(late.step(1))).what).toBe('the peer said nothing for 200 ms at "step 1"');
    expect(late.hasEnded).toBe(true);
    const next = await failureOf(late.step(2));
    expect(next.what).toBe('the peer ended at "step 2" (it said nothing for 200 ms at "step 1")');
    expect(await isAlive(Number(late.settings["own"]))).toBe(false);
  });

  test("one that answers twice is heard no more", async () => {
    const double = await start(
      `say({ ready: true }); answer(() => { say({ seconds: 1 }); say({ seconds: 2 }); });`,
    );
    expect(await double.step(1)).toEqual({ seconds: 1 });
    while (!double.hasEnded) await sleep(5);
    expect((await failureOf(double.step(1))).what).toContain(
      '(it said {"seconds":2} when nothing was asked)',
    );
  });

  test("one that ends while a worker of its own holds its output open is noticed all the same", async () => {
    const peer = await start(`
      const { spawn } = require("node:child_process");
      // One in the same group, and one that left it.
      const worker = spawn(process.execPath, ["-e", "setInterval(() => 0, 1000)"], { stdio: "inherit" });
      const stray = spawn(process.execPath, ["-e", "setTimeout(() => 0, 8000)"], { stdio: "inherit", detached: true });
      say({ ready: true, worker: worker.pid, stray: stray.pid });
      answer(() => { console.error("lost a thread"); process.exit(4); });`);
    const begun = performance.now();
    expect((await failureOf(peer.step(1))).what).toBe('the peer ended at "step 1" (exit code 4)');
    expect(performance.now() - begun).toBeLessThan(6000);
    expect(await isAlive(Number(peer.settings["worker"]))).toBe(false);
    process.kill(Number(peer.settings["stray"]), "SIGKILL");
  });

  test("one that does not leave when asked is killed", async () => {
    const deaf = await start(
      `process.on("SIGTERM", () => 0); setInterval(() => 0, 1000); say({ ready: true, own: process.pid });`,
    );
    deaf[Symbol.dispose]();
    deaf[Symbol.dispose]();
    expect(await isAlive(Number(deaf.settings["own"]))).toBe(false);
  }, 20_000);

  test("one whose starter leaves at once goes with it, deaf or not", async () => {
    const module = JSON.stringify(join(import.meta.dirname, "contestant.ts"));
    const deaf = `process.on("SIGTERM", () => 0); setInterval(() => 0, 1000); console.log(JSON.stringify({ ready: true, own: process.pid }));`;
    const script = `
      import { Contestant } from ${module};
      const spec = { name: "deaf", command: process.execPath, args: ["-e", ${JSON.stringify(deaf)}], readyTimeoutMs: 20000, answerTimeoutMs: 20000 };
      const peer = await Contestant.start(spec, new AbortController().signal);
      console.log(peer.settings.own);
      process.exit(130);`;
    const { stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
      encoding: "utf8",
    });
    expect(Number(stdout)).toBeGreaterThan(0);
    expect(await isAlive(Number(stdout))).toBe(false);
  }, 20_000);

  test("its environment has what it is given, besides everything else", async () => {
    const peer = await start(`say({ ready: true, cache: process.env.CACHE, path: process.env.PATH });`, {
      environment: { CACHE: "/scratch/f32" },
    });
    expect(peer.settings).toMatchObject({ cache: "/scratch/f32", path: process.env["PATH"] });
  });

  test("several, one after another, leave nothing on the signal that would stop them", async () => {
    const stop = new AbortController();
    for (let i = 0; i < 3; i++) {
      using _peer = await Contestant.start(spec("say({ ready: true });"), stop.signal);
    }
    expect(getEventListeners(stop.signal, "abort")).toHaveLength(0);
    const before = process.listenerCount("exit");
    await failureOf(Contestant.start(spec("process.exit(1);"), stop.signal));
    await failureOf(Contestant.start(spec("", { command: "/nowhere/python" }), stop.signal));
    expect(getEventListeners(stop.signal, "abort")).toHaveLength(0);
    expect(process.listenerCount("exit")).toBeLessThanOrEqual(before);
  });

  test("its errors are its own fault and nobody else's", async () => {
    const peer = await start(`say({ ready: true }); answer(() => say({ seconds: "soon" }));`);
    const error = await failureOf(peer.step(1));
    expect(isFaultOf(peer.spec, error)).toBe(true);
    expect(isFaultOf({ ...peer.spec, name: "Minke bf16" }, error)).toBe(false);
    expect(isFaultOf(peer.spec, new Error("the peer"))).toBe(false);
  });
});
