import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test, vi } from "vitest";
import { isNativeFailure, loadAddon, type NativeAddon, type NativeQueue } from "./addon.ts";

const dtypeCode = { f32: 0, bf16: 1 } as const;
type Word = readonly [address: number, dtype: keyof typeof dtypeCode] | null;

const loaded = loadAddon();
if (loaded.addon === null) console.log(`the addon's tests do not run: ${loaded.reason}`);

/** Lays a command into the shared words and submits it. */
function submit(
  addon: NativeAddon,
  queue: NativeQueue,
  op: string,
  operands: readonly Word[],
  numbers: readonly number[],
): void {
  const words = [addon.info().ops.indexOf(op)];
  for (const operand of operands) words.push(operand?.[0] ?? -1, dtypeCode[operand?.[1] ?? "f32"]);
  words.push(...numbers);
  queue.words.set(words);
  queue.submit(words.length);
}

function bytesOf(values: readonly number[]): Uint8Array {
  return new Uint8Array(new Float32Array(values).buffer);
}

async function readFloats(queue: NativeQueue, address: number, count: number): Promise<number[]> {
  const bytes = await queue.read(address, count * 4);
  return [...new Float32Array(bytes.buffer, bytes.byteOffset, count)];
}

describe("loadAddon", () => {
  test("a file that is not there gives a reason instead of an exception", () => {
    const { addon, reason } = loadAddon("/nowhere/minke.none.node");
    expect(addon).toBeNull();
    expect(reason).toMatch(/^\/nowhere\/minke.none.node cannot be loaded: Cannot find module/);
  });

  test("a module that is no addon, and one that breaks on loading, give a reason", () => {
    const folder = mkdtempSync(join(tmpdir(), "minke-addon-"));
    try {
      const other = join(folder, "other.cjs");
      writeFileSync(other, "module.exports = { info() {} };");
      expect(loadAddon(other).reason).toBe(`${other} is no addon of this version`);
      const broken = join(folder, "broken.cjs");
      writeFileSync(broken, "throw 'nothing works';");
      expect(loadAddon(broken).reason).toBe(`${broken} cannot be loaded: nothing works`);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test.runIf(loaded.addon !== null)("the default path is the file that the build script writes", () => {
    expect(existsSync(loaded.addon!.path)).toBe(true);
    expect(loaded.addon!.path).toMatch(
      new RegExp(`native/minke\\.${process.platform}-${process.arch}\\.node$`),
    );
  });
});

describe.runIf(loaded.addon !== null)("NativeQueue", () => {
  const addon = loaded.addon!;
  const queues: NativeQueue[] = [];
  const create = (options: Partial<Parameters<NativeAddon["createQueue"]>[0]> = {}): NativeQueue => {
    const queue = addon.createQueue({ threads: 2, reserveBytes: 2 ** 30, ...options });
    queues.push(queue);
    return queue;
  };

  afterEach(async () => {
    await Promise.all(queues.splice(0).map((queue) => queue.dispose()));
  });

  test("info names distinct ops and puts the portable instruction set last", () => {
    const { ops, isas, parallelism } = addon.info();
    expect(new Set(ops).size).toBe(ops.length);
    expect(ops).toContain("matmul");
    expect(isas.at(-1)).toBe("portable");
    expect(parallelism).toBeGreaterThanOrEqual(1);
  });

  test("writes, commands and reads happen in the order in which they were given", async () => {
    const queue = create();
    // w = [[1, 2], [3, 4]], x = [[5, 6]]: y = x @ w^T = [[17, 39]].
    queue.write(0, bytesOf([1, 2, 3, 4]));
    const x = bytesOf([5, 6]);
    queue.write(64, x);
    x.fill(0);
    submit(addon, queue, "packWeight", [[0, "f32"], [1024, "f32"], null], [1, 2, 2]);
    const operands: Word[] = [[64, "f32"], [1024, "f32"], null, [128, "f32"]];
    submit(addon, queue, "matmul", operands, [1, 2, 2]);
    const first = readFloats(queue, 128, 2);
    queue.write(64, bytesOf([1, 0]));
    submit(addon, queue, "matmul", operands, [1, 2, 2]);
    expect(await first).toEqual([17, 39]);
    expect(await readFloats(queue, 128, 2)).toEqual([1, 3]);
  });

  test("a list of commands runs as if they came one by one, and is refused whole if it is wrong", async () => {
    const queue = create();
    queue.write(0, bytesOf([1, 2, 3, 4]));
    queue.write(64, bytesOf([5, 6]));
    const [pack, matmul] = ["packWeight", "matmul"].map((op) => addon.info().ops.indexOf(op));
    const packing = [pack!, 0, 0, 1024, 0, -1, 0, 1, 2, 2];
    const product = [matmul!, 64, 0, 1024, 0, -1, 0, 128, 0, 1, 2, 2];
    queue.submitList(Float64Array.of(packing.length, ...packing, product.length, ...product));
    expect(await readFloats(queue, 128, 2)).toEqual([17, 39]);
    queue.write(64, bytesOf([1, 0]));
    const cut = Float64Array.of(product.length, ...product, product.length, ...product.slice(1));
    expect(() => queue.submitList(cut)).toThrow("command 1 of the list has 12 words of 11");
    expect(await readFloats(queue, 128, 2)).toEqual([17, 39]);
  });

  test("every instruction set and number of threads gives the same bits", async () => {
    const values = Array.from({ length: 40 * 70 }, (_, i) => Math.sin(i));
    const results: number[][] = [];
    // AMX sums bf16 products in an order of its own; its bits are held in test/parity/ops.test.ts.
    for (const isa of addon.info().isas.filter((name) => name !== "amx")) {
      for (const threads of [1, 2]) {
        const queue = create({ isa, threads });
        expect(queue.isa).toBe(isa);
        queue.write(0, bytesOf(values));
        submit(addon, queue, "packWeight", [[0, "f32"], [65536, "bf16"], null], [1, 40, 70]);
        const operands: Word[] = [[0, "f32"], [65536, "bf16"], null, [131072, "f32"]];
        submit(addon, queue, "matmul", operands, [40, 40, 70]);
        results.push(await readFloats(queue, 131072, 1600));
      }
    }
    expect(results[0]?.some((value) => value !== 0)).toBe(true);
    for (const result of results) expect(result).toEqual(results[0]);
  });

  test("the first failure reaches every waiter with op, operand and command, and is never unhandled", async () => {
    const unhandled = vi.fn();
    process.on("unhandledRejection", unhandled);
    const queue = create();
    submit(addon, queue, "matmul", [[0, "f32"], null, null, [64, "f32"]], [1, 1, 1]);
    void queue.drain();
    const failure: unknown = await queue.read(0, 4).catch((error: unknown) => error);
    await new Promise((resolve) => setImmediate(resolve));
    process.off("unhandledRejection", unhandled);
    expect(unhandled).not.toHaveBeenCalled();
    expect(isNativeFailure(failure)).toBe(true);
    expect(failure).toMatchObject({ op: "matmul", param: "panels", command: 0 });
    expect(failure).toMatchObject({ message: "matmul (panels): is absent, the op needs it" });
    await expect(queue.drain()).rejects.toMatchObject({ words: expect.arrayContaining([64, -1]) });
  });

  test("ranges outside the arena, unknown instruction sets and too long commands throw at once", () => {
    const queue = create();
    expect(() => queue.write(2 ** 30 - 2, new Uint8Array(4))).toThrow(
      "lie outside an arena of 1073741824 bytes",
    );
    expect(() => queue.read(-1, 4)).toThrow("address = -1 is not a number of bytes");
    expect(() => queue.submit(257)).toThrow("257 words of 256");
    expect(() => create({ isa: "sse9" as "portable" })).toThrow('instruction set "sse9" is not usable here');
    expect(() => create({ reserveBytes: 2 ** 52 })).toThrow("cannot reserve");
  });

  test("submitting does not wait for the work, and the event loop turns while it runs", async () => {
    const queue = create();
    const n = 512;
    submit(addon, queue, "packWeight", [[0, "f32"], [2 ** 24, "f32"], null], [1, n, n]);
    const operands: Word[] = [[0, "f32"], [2 ** 24, "f32"], null, [2 ** 25, "f32"]];
    for (let i = 0; i < 20; i++) submit(addon, queue, "matmul", operands, [n, n, n]);
    let turns = 0;
    let running = true;
    const done = queue.drain().then(() => {
      running = false;
    });
    while (running) {
      turns++;
      await new Promise((resolve) => setImmediate(resolve));
    }
    await done;
    expect(turns).toBeGreaterThan(20);
  });

  test("the trace has op, begin and end of each command while it is on", async () => {
    const queue = create();
    queue.setTrace(true);
    submit(addon, queue, "packWeight", [[0, "f32"], [1024, "f32"], null], [1, 2, 2]);
    submit(addon, queue, "packWeight", [[0, "f32"], [1024, "f32"], null], [1, 4, 4]);
    await queue.drain();
    queue.setTrace(false);
    const code = addon.info().ops.indexOf("packWeight");
    const [op1, begin1, end1, op2, begin2] = queue.takeTrace();
    expect([op1, op2]).toEqual([code, code]);
    expect(end1).toBeGreaterThanOrEqual(begin1!);
    expect(begin2).toBeGreaterThanOrEqual(end1!);
    expect(queue.takeTrace()).toHaveLength(0);
  });

  test("peak measures each kind in order on the queue's threads", async () => {
    const queue = create();
    expect(await queue.peak("f32", 0.005, 1)).toBeGreaterThan(1e8);
    expect(await queue.peak("bf16", 0.005, 2)).toBeGreaterThan(1e8);
    expect(() => queue.peak("int4" as "f32", 1, 1)).toThrow("there are f32 and bf16");
  });

  test("dispose rejects what has not begun, and everything afterwards throws", async () => {
    const queue = create();
    const n = 512;
    const operands: Word[] = [[0, "f32"], [2 ** 24, "f32"], null, [2 ** 25, "f32"]];
    for (let i = 0; i < 200; i++) submit(addon, queue, "matmul", operands, [n, n, n]);
    const pending = queue.drain();
    await queue.dispose();
    await expect(pending).rejects.toMatchObject({ op: "dispose" });
    expect(() => queue.submit(1)).toThrow("the queue is disposed");
    expect(() => queue.read(0, 4)).toThrow("the queue is disposed");
    await queue.dispose();
  });

  test("queues that share a pool compute side by side, with the bits of a pool of their own", async () => {
    const pool = addon.createPool(2);
    expect(pool.threads).toBe(2);
    const n = 96;
    const values = Array.from({ length: n * n }, (_, i) => Math.cos(i));
    const results = [create(), create({ pool }), create({ pool }), create({ pool })].map((queue) => {
      queue.write(0, bytesOf(values));
      submit(addon, queue, "packWeight", [[0, "f32"], [2 ** 20, "f32"], null], [1, n, n]);
      const operands: Word[] = [[0, "f32"], [2 ** 20, "f32"], null, [2 ** 21, "f32"]];
      for (let i = 0; i < 50; i++) submit(addon, queue, "matmul", operands, [n, n, n]);
      return queue.read(2 ** 21, n * n * 4);
    });
    const [alone, ...shared] = await Promise.all(results);
    for (const bytes of shared) expect(bytes).toEqual(alone);
  });

  test("a pool outlives the queues that are disposed before the others", async () => {
    const pool = addon.createPool(2);
    const [first, second] = [create({ pool }), create({ pool })];
    await first.dispose();
    submit(addon, second, "fill", [[0, "f32"]], [100_000, 3]);
    expect(await readFloats(second, 399_996, 1)).toEqual([3]);
  });

  test("a hub knows its ranks, and refuses others and impossible time-outs", () => {
    const hub = addon.createHub(2, 0.5);
    expect([hub.ranks, hub.endpoint(1).rank]).toEqual([2, 1]);
    expect(() => hub.endpoint(2)).toThrow("there is no rank 2: there are ranks 0 to 1");
    for (const timeout of [-1, Number.NaN]) {
      expect(() => addon.createHub(2, timeout)).toThrow(`timeoutSeconds = ${timeout}`);
    }
  });

  test("a process that waits for a message and is told to stop ends by itself", async () => {
    const { spawnSync } = await import("node:child_process");
    const script = `
      const addon = require(${JSON.stringify(addon.path)});
      const words = new Float64Array(256);
      const queue = addon.createQueue({ threads: 1, reserveBytes: 2 ** 20 }, words);
      queue.connect(addon.createHub(2, 600).endpoint(0));
      const code = (name) => addon.info().ops.indexOf(name);
      words.set([code("postReceive"), 0, 0, -1, 0, 0, 1, 0, 1, 4, 0, 1]);
      queue.submit(12);
      words.set([code("awaitMessages"), 0]);
      queue.submit(2);
      queue.drain().catch((error) => console.log(error.op));
      setTimeout(() => queue.dispose(), 100);`;
    const child = spawnSync(process.execPath, ["-e", script], { encoding: "utf8", timeout: 20_000 });
    expect([child.stderr, child.stdout, child.status]).toEqual(["", "dispose\n", 0]);
  });

  test("a process that only holds a queue ends by itself", async () => {
    const { spawnSync } = await import("node:child_process");
    const script = `
      const addon = require(${JSON.stringify(addon.path)});
      const queue = addon.createQueue({ threads: 2, reserveBytes: 2 ** 20 }, new Float64Array(256));
      queue.drain().then(() => console.log("drained"));`;
    const child = spawnSync(process.execPath, ["-e", script], { encoding: "utf8", timeout: 20_000 });
    expect(child.stderr).toBe("");
    expect(child.stdout).toBe("drained\n");
    expect(child.status).toBe(0);
  });
});
