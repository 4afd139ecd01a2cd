import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { readSafetensors } from "../../test/support/safetensors.ts";
import { scratchFolder } from "../../test/support/scratchFolder.ts";
import { CheckpointError } from "../base/index.ts";
import {
  bytesOf,
  type DiskDtype,
  SafetensorsFile,
  type TensorToWrite,
  writeSafetensors,
} from "./safetensors.ts";

function tensor(
  name: string,
  dtype: DiskDtype,
  shape: readonly number[],
  bytes: Uint8Array = Uint8Array.from(
    { length: bytesOf({ dtype, shape }) },
    (_, i) => (7 * i + name.length) & 255,
  ),
): TensorToWrite {
  return { name, dtype, shape, bytes: async () => bytes.slice() };
}

/** A file made by hand: what a damaged disk or an attacker may give us. */
async function fileOf(header: string | object, data: Uint8Array = new Uint8Array(0)): Promise<string> {
  const json = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + json.length + data.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(json, 8);
  bytes.set(data, 8 + json.length);
  return written(bytes);
}

async function written(bytes: Uint8Array): Promise<string> {
  const path = join(await scratchFolder(), "model.safetensors");
  await writeFile(path, bytes);
  return path;
}

async function refusal(path: string): Promise<CheckpointError> {
  const outcome = await SafetensorsFile.open(path).then(
    async (file) => {
      await file.close();
      return new Error(`${path} was taken for sound`);
    },
    (error: unknown) => error,
  );
  expect(outcome).toBeInstanceOf(CheckpointError);
  return outcome as CheckpointError;
}

const entry = (begin: number, end: number, shape: readonly number[] = [end - begin]): object => ({
  dtype: "U8",
  shape,
  data_offsets: [begin, end],
});

describe("writeSafetensors", () => {
  test("writes what an independent reader reads", async () => {
    const path = join(await scratchFolder(), "x.safetensors");
    const values = Float32Array.of(1, -0, 3.5, Number.POSITIVE_INFINITY, 1e-45, 6);
    const bf16 = Uint16Array.of(0x3f80, 0xc000, 0x7f80);
    await writeSafetensors(path, [
      tensor("a", "F32", [2, 3], new Uint8Array(values.buffer)),
      tensor("b.c", "BF16", [3], new Uint8Array(bf16.buffer)),
    ]);
    const read = readSafetensors(await readFile(path));
    expect(read.get("a")).toEqual({ dtype: "F32", shape: [2, 3], values });
    expect(Array.from(read.get("b.c")!.values)).toEqual([1, -2, Number.POSITIVE_INFINITY]);
  });

  test("pads the header with spaces so that the data begins at a multiple of eight", async () => {
    for (const name of ["a", "ab", "abc", "abcdefgh"]) {
      const path = join(await scratchFolder(), "x.safetensors");
      await writeSafetensors(path, [tensor(name, "U8", [3])]);
      const file = await readFile(path);
      const length = Number(file.readBigUInt64LE(0));
      expect(length % 8).toBe(0);
      expect(file.toString("utf8", 8, 8 + length)).toMatch(/^\{.*\} *$/);
      expect(file.length).toBe(8 + length + 3);
    }
  });

  test("says format pt, without which older readers refuse the file, and keeps other metadata", async () => {
    const folder = await scratchFolder();
    await writeSafetensors(join(folder, "one"), []);
    await writeSafetensors(join(folder, "two"), [], { format: "minke", step: "3" });
    const one = await SafetensorsFile.open(join(folder, "one"));
    const two = await SafetensorsFile.open(join(folder, "two"));
    expect([one.metadata, two.metadata]).toEqual([{ format: "pt" }, { format: "minke", step: "3" }]);
    await Promise.all([one.close(), two.close()]);
  });

  test("never writes over a file that is there", async () => {
    const path = join(await scratchFolder(), "x.safetensors");
    await writeSafetensors(path, [tensor("first", "U8", [1])]);
    await expect(writeSafetensors(path, [tensor("second", "U8", [1])])).rejects.toThrow(/EEXIST/);
    expect([...readSafetensorsNames(await readFile(path))]).toEqual(["first"]);
  });

  test("asks for a tensor's bytes when its turn comes, one at a time", async () => {
    const path = join(await scratchFolder(), "x.safetensors");
    const happened: string[] = [];
    const slow = (name: string): TensorToWrite => ({
      ...tensor(name, "U8", [4]),
      async bytes() {
        happened.push(`${name} asked`);
        await new Promise((resolve) => setTimeout(resolve, 2));
        happened.push(`${name} given`);
        return new Uint8Array(4);
      },
    });
    await writeSafetensors(path, [slow("a"), slow("b")]);
    expect(happened).toEqual(["a asked", "a given", "b asked", "b given"]);
  });

  test("takes bytes that do not fit the shape for a bug, before a reader would find a shifted file", async () => {
    const path = join(await scratchFolder(), "x.safetensors");
    const short = tensor("a", "F32", [4], new Uint8Array(12));
    await expect(writeSafetensors(path, [short])).rejects.toThrow(/a gives the bytes that its shape needs/);
  });
});

function readSafetensorsNames(file: Buffer): Iterable<string> {
  const length = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, 8 + length)) as object;
  return Object.keys(header).filter((name) => name !== "__metadata__");
}

const dtypes: readonly DiskDtype[] = ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E8M0", "I64", "I32", "U8"];

describe("SafetensorsFile", () => {
  test("gives back a tensor that is called as objects call their prototype", async () => {
    const path = join(await scratchFolder(), "x.safetensors");
    await writeSafetensors(path, [tensor("__proto__", "I32", [2]), tensor("a", "F32", [1])]);
    const file = await SafetensorsFile.open(path);
    expect([...file.tensors.keys()]).toEqual(["__proto__", "a"]);
    await file.close();
  });

  test("gives back names, dtypes, shapes and bytes of whatever was written", async () => {
    const shapes = fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 3 });
    const names = fc.uniqueArray(
      fc.string({ maxLength: 12 }).filter((name) => name !== "__metadata__"),
      {
        maxLength: 6,
      },
    );
    await fc.assert(
      fc.asyncProperty(
        names,
        fc.infiniteStream(fc.tuple(shapes, fc.constantFrom(...dtypes))),
        async (all, kinds) => {
          const folder = await scratchFolder();
          const path = join(folder, "x.safetensors");
          const tensors = all.map((name) => {
            const [shape, dtype] = kinds.next().value;
            return tensor(name, dtype, shape);
          });
          await writeSafetensors(path, tensors);
          const file = await SafetensorsFile.open(path);
          try {
            expect([...file.tensors.keys()].sort()).toEqual([...all].sort());
            for (const wanted of tensors) {
              const found = file.tensors.get(wanted.name)!;
              expect({ dtype: found.dtype, shape: found.shape }).toEqual({
                dtype: wanted.dtype,
                shape: wanted.shape,
              });
              expect(await file.read(found)).toEqual(await wanted.bytes());
            }
          } finally {
            await file.close();
          }
        },
      ),
      { numRuns: 40 },
    );
  });

  test("reads part of a tensor from where it is asked to", async () => {
    const path = join(await scratchFolder(), "x.safetensors");
    await writeSafetensors(path, [
      tensor("a", "U8", [9]),
      tensor("b", "U8", [5], Uint8Array.of(1, 2, 3, 4, 5)),
    ]);
    const file = await SafetensorsFile.open(path);
    expect(await file.read(file.tensors.get("b")!, 1, 3)).toEqual(Uint8Array.of(2, 3, 4));
    await file.close();
  });

  test("reads a header whose tensors stand in another order than their bytes", async () => {
    const path = await fileOf({ late: entry(2, 5), early: entry(0, 2) }, Uint8Array.of(1, 2, 3, 4, 5));
    const file = await SafetensorsFile.open(path);
    expect(await file.read(file.tensors.get("late")!)).toEqual(Uint8Array.of(3, 4, 5));
    expect(await file.read(file.tensors.get("early")!)).toEqual(Uint8Array.of(1, 2));
    await file.close();
  });

  test("says so when the file has become shorter since it was opened", async () => {
    const path = await fileOf({ a: entry(0, 8) }, new Uint8Array(8));
    const file = await SafetensorsFile.open(path);
    await writeFile(path, (await readFile(path)).subarray(0, -3));
    await expect(file.read(file.tensors.get("a")!)).rejects.toThrow(/a ends after 5 of 8 bytes/);
    await file.close();
  });
});

describe("a file that is not sound is refused with what is wrong:", () => {
  test("an empty one", async () => {
    expect(String(await refusal(await written(new Uint8Array(0))))).toMatch(/has 0 bytes/);
  });

  test("one that ends inside the length of its header", async () => {
    expect(String(await refusal(await written(new Uint8Array(5))))).toMatch(/has 5 bytes/);
  });

  test("one that ends inside its header", async () => {
    const whole = await readFile(await fileOf({ a: entry(0, 2) }, new Uint8Array(2)));
    expect(String(await refusal(await written(whole.subarray(0, 20))))).toMatch(
      /its header should have \d+ bytes/,
    );
  });

  test("one that ends inside its data", async () => {
    const whole = await readFile(await fileOf({ a: entry(0, 9) }, new Uint8Array(9)));
    expect(String(await refusal(await written(whole.subarray(0, -1))))).toMatch(
      /holds \d+ bytes where its header/,
    );
  });

  test("one that goes on behind its data", async () => {
    const path = await fileOf({ a: entry(0, 9) }, new Uint8Array(10));
    expect(String(await refusal(path))).toMatch(/every byte belongs to a tensor/);
  });

  test("an absurd length of the header, without allocating it", async () => {
    const bytes = new Uint8Array(64);
    new DataView(bytes.buffer).setBigUint64(0, 2n ** 63n, true);
    expect(String(await refusal(await written(bytes)))).toMatch(/9223372036854776000 bytes, the file has 64/);
    new DataView(bytes.buffer).setBigUint64(0, 57n, true);
    await refusal(await written(bytes));
  });

  test.each([
    ["nothing", ""],
    ["no JSON", "{a: 1}"],
    ["JSON that is cut", '{"a":'],
    ["a list", "[]"],
    ["a string", '"header"'],
    ["null", "null"],
  ])("a header that is %s", async (_, header) => {
    expect(String(await refusal(await fileOf(header)))).toMatch(/its header is no JSON object/);
  });

  test("two tensors that overlap", async () => {
    const path = await fileOf({ a: entry(0, 4), b: entry(2, 6) }, new Uint8Array(6));
    expect(String(await refusal(path))).toMatch(/b begins at \d+, the one before ends at/);
  });

  test("a hole between two tensors, and one before the first", async () => {
    await refusal(await fileOf({ a: entry(0, 2), b: entry(3, 6) }, new Uint8Array(6)));
    await refusal(await fileOf({ a: entry(1, 6) }, new Uint8Array(6)));
  });

  test("the same name twice, in whatever order its fields stand and however it is spelt", async () => {
    const a = '{"dtype":"U8","shape":[1],"data_offsets":[0,1]}';
    const b = '{"data_offsets":[0,1],"shape":[1],"dtype":"U8"}';
    const other = '{"note":"x","dtype":"U8","shape":[1],"data_offsets":[0,1]}';
    for (const second of [`"w":${a}`, `"w":${b}`, `"w":${other}`, `"\\u0077":${a}`, ` "w" : ${a}`]) {
      const path = await fileOf(`{"w":${a},${second}}`, new Uint8Array(1));
      expect(String(await refusal(path))).toMatch(/names w twice/);
    }
  });

  test("a name that looks like structure is no second tensor", async () => {
    const path = await fileOf(
      { 'a":{"dtype"': entry(0, 1), "b,\\": entry(1, 2), "{": entry(2, 3) },
      new Uint8Array(3),
    );
    const file = await SafetensorsFile.open(path);
    expect(file.tensors.size).toBe(3);
    await file.close();
  });

  test("a name of a million characters neither overflows a stack nor takes long", async () => {
    const file = await SafetensorsFile.open(
      await fileOf({ ["\\".repeat(500_000)]: entry(0, 1) }, new Uint8Array(1)),
    );
    expect([...file.tensors.keys()][0]).toHaveLength(500_000);
    await file.close();
  });

  test.each(["F4", "float32", "", "constructor", "toString"])("the dtype %j", async (dtype) => {
    const path = await fileOf({ a: { dtype, shape: [1], data_offsets: [0, 1] } }, new Uint8Array(1));
    expect(String(await refusal(path))).toMatch(/a has dtype .*\n {2}why: known dtypes are F64, F32/);
  });

  test.each([
    ["an entry that is null", null],
    ["an entry that is a number", 3],
    ["an entry without shape", { dtype: "U8", data_offsets: [0, 1] }],
    ["an entry without place", { dtype: "U8", shape: [1] }],
    ["a negative dimension", { dtype: "U8", shape: [-1, -1], data_offsets: [0, 1] }],
    ["half a dimension", { dtype: "U8", shape: [0.5, 2], data_offsets: [0, 1] }],
    ["a dimension in quotes", { dtype: "U8", shape: ["1"], data_offsets: [0, 1] }],
    ["a place of one number", { dtype: "U8", shape: [1], data_offsets: [0] }],
    ["a place of three numbers", { dtype: "U8", shape: [1], data_offsets: [0, 1, 1] }],
    ["a place before the data", { dtype: "U8", shape: [1], data_offsets: [-1, 0] }],
    ["a place that ends before it begins", { dtype: "U8", shape: [1], data_offsets: [1, 0] }],
    ["a shape that needs more bytes", { dtype: "F32", shape: [1], data_offsets: [0, 1] }],
    ["dimensions that wrap around", { dtype: "U8", shape: [2 ** 32, 2 ** 32], data_offsets: [0, 0] }],
  ])("%s", async (_, value) => {
    await refusal(await fileOf({ a: value }, new Uint8Array(1)));
  });

  test.each([null, [], "pt", { format: 3 }])("metadata that is no map of strings: %j", async (metadata) => {
    expect(String(await refusal(await fileOf({ __metadata__: metadata })))).toMatch(/no map of strings/);
  });

  test("the file's path, and what to do", async () => {
    const path = await written(new Uint8Array(5));
    const error = await refusal(path);
    expect(error.message.replaceAll(path, "PATH")).toMatchInlineSnapshot(`
      "PATH: has 5 bytes
        why: a safetensors file begins with the length of its header
        fix: the file is damaged or no safetensors file: copy it again, or use an earlier checkpoint of the run"
    `);
    expect(error.fields["path"]).toBe(path);
  });
});

describe("whatever happens to a file", () => {
  /** Every open gives either a sound file or a CheckpointError. */
  async function opensOrRefuses(bytes: Uint8Array): Promise<boolean> {
    const path = await written(bytes);
    try {
      const file = await SafetensorsFile.open(path);
      for (const found of file.tensors.values()) expect(found.end).toBeLessThanOrEqual(bytes.length);
      await file.close();
      return true;
    } catch (error) {
      expect(error).toBeInstanceOf(CheckpointError);
      return false;
    }
  }

  test("to its bytes, reading gives tensors inside the file or a CheckpointError", async () => {
    const path = join(await scratchFolder(), "x.safetensors");
    await writeSafetensors(path, [tensor("a", "F32", [2, 2]), tensor("b", "BF16", [3])]);
    const whole = await readFile(path);
    const change = fc.record({ at: fc.nat({ max: whole.length - 23 }), to: fc.nat({ max: 255 }) });
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 4 }), async (changes) => {
        const bytes = Uint8Array.from(whole);
        for (const { at, to } of changes) bytes[at] = to;
        if (!(await opensOrRefuses(bytes))) refused++;
      }),
      { numRuns: 150 },
    );
    expect(refused).toBeGreaterThan(100);
  });

  test("to its length, reading refuses", async () => {
    const path = join(await scratchFolder(), "x.safetensors");
    await writeSafetensors(path, [tensor("a", "F32", [2, 2]), tensor("b", "U8", [0])]);
    const whole = await readFile(path);
    for (let length = 0; length < whole.length; length += 3)
      expect(await opensOrRefuses(whole.subarray(0, length))).toBe(false);
    expect(await opensOrRefuses(whole)).toBe(true);
  });

  test("to the JSON of its header, reading gives tensors inside the file or a CheckpointError", async () => {
    const someEntry = fc.record(
      {
        dtype: fc.oneof(fc.constantFrom(...dtypes), fc.string()),
        shape: fc.oneof(fc.array(fc.integer({ min: -1, max: 3 })), fc.jsonValue()),
        data_offsets: fc.oneof(fc.tuple(fc.nat({ max: 8 }), fc.nat({ max: 8 })), fc.jsonValue()),
      },
      { requiredKeys: [] },
    );
    const header = fc.oneof(fc.jsonValue(), fc.dictionary(fc.string(), fc.oneof(someEntry, fc.jsonValue())));
    await fc.assert(
      fc.asyncProperty(header, fc.nat({ max: 8 }), async (value, size) => {
        const path = await fileOf(JSON.stringify(value), new Uint8Array(size));
        await opensOrRefuses(await readFile(path));
      }),
      { numRuns: 150 },
    );
  });
});
