import { type FileHandle, mkdtemp, open, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { DiskError, RunError } from "../../base/index.ts";
import { type AppendableFile, Appender } from "./appender.ts";

let folder: string;
let path: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "minke-append-"));
  path = join(folder, "file");
});
afterEach(() => rm(folder, { recursive: true }));

/** A disk with a given number of free bytes around a real file: writes what fits, then says that it is full. */
class FullDisk implements Pick<AppendableFile, "datasync" | "close"> {
  free: number;
  readonly #file: FileHandle;

  constructor(file: FileHandle, free: number) {
    this.#file = file;
    this.free = free;
  }

  async write(bytes: Buffer, offset: number, length: number, position: number) {
    if (this.free === 0) throw Object.assign(new Error("no space left on device"), { code: "ENOSPC" });
    const fits = Math.min(length, this.free);
    this.free -= fits;
    return this.#file.write(bytes, offset, fits, position);
  }

  datasync = () => this.#file.datasync();
  close = () => this.#file.close();
}

describe("Appender", () => {
  test("writes what it is handed in order, after what the file held", async () => {
    const file = await open(path, "w+");
    await file.write("before ");
    const appender = new Appender(path, file, 7, "write");
    for (const word of ["one ", "two ", "three"]) appender.append(Buffer.from(word));
    expect(appender.numPending).toBe(3);
    await appender.close();
    expect(await readFile(path, "utf8")).toBe("before one two three");
    expect(() => appender.append(Buffer.from("late"))).toThrow(RunError);
    await appender.close();
  });

  test("a file that takes a few bytes at a time gets them all, each once", async () => {
    const file = await open(path, "w+");
    const slow = {
      write: (bytes: Buffer, offset: number, length: number, position: number) =>
        file.write(bytes, offset, Math.min(3, length), position),
      datasync: () => file.datasync(),
      close: () => file.close(),
    };
    const appender = new Appender(path, slow as unknown as AppendableFile, 0, "write");
    for (const piece of ["one two ", "three", " four"]) appender.append(Buffer.from(piece));
    await appender.close();
    expect(await readFile(path, "utf8")).toBe("one two three four");
  });

  test("a flush with nothing to write is allowed", async () => {
    const appender = new Appender(path, await open(path, "w+"), 0, "write");
    await appender.flush();
    await appender.close();
    expect(await readFile(path, "utf8")).toBe("");
  });
});

describe("a full disk", () => {
  test("is a DiskError at the flush, and loses nothing wherever it begins", async () => {
    const pieces = ["first,", "second,", "third,", "fourth"];
    const whole = pieces.join("");
    await fc.assert(
      fc.asyncProperty(fc.nat(whole.length - 1), async (free) => {
        const disk = new FullDisk(await open(path, "w+"), free);
        const appender = new Appender(path, disk as unknown as AppendableFile, 0, "write events");
        for (const piece of pieces) appender.append(Buffer.from(piece));
        await expect(appender.flush()).rejects.toThrow(DiskError);
        expect(appender.failure).toBeInstanceOf(DiskError);
        expect(appender.numPending).toBeGreaterThan(0);
        await expect(appender.flush()).rejects.toThrow("no space left");

        appender.append(Buffer.from(", late"));
        disk.free = 1000;
        await appender.flush();
        expect(appender.failure).toBeUndefined();
        expect(appender.numPending).toBe(0);
        await appender.close();
        expect(await readFile(path, "utf8")).toBe(`${whole}, late`);
      }),
      { numRuns: 30 },
    );
  });

  test("of the real kernel is recognised", async () => {
    const appender = new Appender("/dev/full", await open("/dev/full", "r+"), 0, "write events");
    appender.append(Buffer.from("x"));
    await expect(appender.flush()).rejects.toThrow("cannot write events: no space left for /dev/full");
    await expect(appender.close()).rejects.toThrow(DiskError);
  });
});
