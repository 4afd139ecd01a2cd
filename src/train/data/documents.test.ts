import { spawnSync } from "node:child_process";
import { chmod, mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { scratchFolder } from "../../../test/support/scratchFolder.ts";
import { DataError } from "../../base/index.ts";
import { type Document, findDocumentFiles, readDocuments } from "./documents.ts";

/** Files of a folder by their paths in it. */
async function folderOf(files: Readonly<Record<string, string | Uint8Array>>): Promise<string> {
  const folder = await scratchFolder();
  for (const [name, content] of Object.entries(files)) {
    await mkdir(join(folder, name, ".."), { recursive: true });
    await writeFile(join(folder, name), content);
  }
  return folder;
}

async function read(files: readonly string[]): Promise<Document[]> {
  const documents: Document[] = [];
  for await (const document of readDocuments(files)) documents.push(document);
  return documents;
}

async function texts(path: string): Promise<string[]> {
  return (await read([path])).map(({ text }) => text);
}

async function refusal(reading: Promise<unknown>): Promise<DataError> {
  const outcome: unknown = await reading.then(
    () => "it was read",
    (error: unknown) => error,
  );
  expect(outcome).toBeInstanceOf(DataError);
  return outcome as DataError;
}

describe("findDocumentFiles", () => {
  test("finds files of every kind below a folder, in the order of their paths, and counts the others", async () => {
    const folder = await folderOf({
      "b/z.txt": "",
      "b/a.md": "",
      "a.jsonl": "",
      "c.PARQUET": "",
      "a/deep/er.txt": "",
      "picture.png": "",
      "b/noext": "",
    });
    const { files, skipped } = await findDocumentFiles([folder]);
    expect(files.map((file) => file.slice(folder.length + 1))).toEqual([
      "a.jsonl",
      "a/deep/er.txt",
      "b/a.md",
      "b/z.txt",
      "c.PARQUET",
    ]);
    expect(skipped).toBe(2);
  });

  test("keeps the order in which paths were given", async () => {
    const folder = await folderOf({ "z.txt": "", "a/one.txt": "", "a/two.txt": "" });
    const { files } = await findDocumentFiles([join(folder, "z.txt"), join(folder, "a")]);
    expect(files.map((file) => file.slice(folder.length + 1))).toEqual(["z.txt", "a/one.txt", "a/two.txt"]);
  });

  test("follows links to files", async () => {
    const folder = await folderOf({ "real.txt": "text" });
    const linked = await folderOf({});
    await symlink(join(folder, "real.txt"), join(linked, "link.txt"));
    const { files } = await findDocumentFiles([linked]);
    expect(files).toEqual([join(linked, "link.txt")]);
    expect(await texts(files[0]!)).toEqual(["text"]);
  });

  test("names the neighbour of a path that does not exist", async () => {
    const folder = await folderOf({ "speeches.txt": "" });
    const error = await refusal(findDocumentFiles([join(folder, "speaches.txt")]));
    expect(error.message.replaceAll(folder, "FOLDER")).toMatchInlineSnapshot(`
      "FOLDER/speaches.txt does not exist
        why: the path was given as training data
        fix: did you mean FOLDER/speeches.txt?"
    `);
  });

  test("has only --data to point at where nothing is near", async () => {
    const folder = await folderOf({});
    const error = await refusal(findDocumentFiles([join(folder, "a", "b")]));
    expect(error.message).toContain("fix: check the path");
  });

  test("refuses a file of another kind and says which kinds there are", async () => {
    const folder = await folderOf({ "book.pdf": "" });
    const error = await refusal(findDocumentFiles([join(folder, "book.pdf")]));
    expect(error.message.replaceAll(folder, "FOLDER")).toMatchInlineSnapshot(`
      "FOLDER/book.pdf is not of a kind that can be read
        why: documents come from .txt, .md, .jsonl, .parquet
        fix: rename it to .txt if it is plain text"
    `);
  });

  test("refuses folders that hold none", async () => {
    const folder = await folderOf({ "a.png": "", "b.bin": "" });
    expect((await refusal(findDocumentFiles([folder]))).message).toMatch(
      /2 files were found, none of them is one of/,
    );
  });
});

describe("text files", () => {
  test("are one document each, to the last character", async () => {
    const folder = await folderOf({ "a.txt": "one\r\n\ntwo ", "b.md": "# Größe 🐋\n" });
    const documents = await read([join(folder, "a.txt"), join(folder, "b.md")]);
    expect(documents).toEqual([
      { id: join(folder, "a.txt"), text: "one\r\n\ntwo " },
      { id: join(folder, "b.md"), text: "# Größe 🐋\n" },
    ]);
  });

  test("lose the byte order mark that some editors put before them, and no other", async () => {
    const folder = await folderOf({ "a.txt": "\ufeffone\ufefftwo" });
    expect(await texts(join(folder, "a.txt"))).toEqual(["one\ufefftwo"]);
  });

  test("are left out if they are empty or blank", async () => {
    const folder = await folderOf({ "a.txt": "", "b.txt": " \n\t\n", "c.txt": "x" });
    const { files } = await findDocumentFiles([folder]);
    expect((await read(files)).map(({ text }) => text)).toEqual(["x"]);
  });

  test("are refused if none of them holds text", async () => {
    const folder = await folderOf({ "a.txt": "", "b.txt": "\n" });
    const { files } = await findDocumentFiles([folder]);
    expect((await refusal(read(files))).message).toMatch(/^2 files hold no text/);
    expect((await refusal(read(files.slice(0, 1)))).message).toContain("a.txt holds no text");
  });

  test.each<[string, readonly number[], number]>([
    ["a zero byte", [65, 66, 0, 67], 2],
    ["a byte that begins no character", [65, 0xff, 66], 1],
    ["a continuation without a beginning", [65, 66, 67, 0x80], 3],
    ["a character that is broken off", [65, 0xe9, 0xaf, 66], 3],
    ["a surrogate", [0xed, 0xa0, 0x80], 1],
    ["Latin-1", [...Buffer.from("Gr\u00f6\u00dfe", "latin1")], 2],
  ])("are refused with the byte that is no UTF-8: %s", async (_, bytes, offset) => {
    const folder = await folderOf({ "a.txt": Uint8Array.from(bytes) });
    const error = await refusal(texts(join(folder, "a.txt")));
    expect(error.fields["offset"]).toBe(offset);
    expect(error.message).toContain(`a.txt is no text: byte ${offset}`);
  });

  test("point at the one byte that was spoilt, wherever it is", async () => {
    const valid = new TextEncoder().encode("The whale, größer als ein Boot, 鯨 🐋, sings. ".repeat(5));
    await fc.assert(
      fc.asyncProperty(fc.nat({ max: valid.length - 1 }), async (at) => {
        // 0xff occurs nowhere in UTF-8; where it breaks a character off, it is itself the first that does not fit.
        const bytes = Uint8Array.from(valid);
        bytes[at] = 0xff;
        const folder = await folderOf({ "a.txt": bytes });
        expect((await refusal(texts(join(folder, "a.txt")))).fields["offset"]).toBe(at);
      }),
      { numRuns: 30 },
    );
  });
});

describe("lines of JSON", () => {
  test("are one document each, with the line's number in its name", async () => {
    const folder = await folderOf({
      "a.jsonl": '{"text":"one"}\n\n{"id":3,"text":"two\\nlines 🐋"}\r\n{"text":""}\n',
    });
    const path = join(folder, "a.jsonl");
    expect(await read([path])).toEqual([
      { id: `${path}:1`, text: "one" },
      { id: `${path}:3`, text: "two\nlines 🐋" },
    ]);
  });

  test("give back every text that was written", async () => {
    const text = fc.string({ unit: "binary" }).filter((value) => value.trim() !== "");
    await fc.assert(
      fc.asyncProperty(fc.array(text, { minLength: 1, maxLength: 5 }), async (written) => {
        const lines = written.map((value) => JSON.stringify({ text: value }));
        const folder = await folderOf({ "a.jsonl": lines.join("\n") });
        expect(await texts(join(folder, "a.jsonl"))).toEqual(written);
      }),
      { numRuns: 30 },
    );
  });

  test("are refused at the line that is no JSON", async () => {
    const folder = await folderOf({ "a.jsonl": '{"text":"one"}\n{"text":' });
    const error = await refusal(texts(join(folder, "a.jsonl")));
    expect(error.message).toContain("a.jsonl, line 2 is not JSON");
    expect(error.fields["line"]).toBe(2);
  });

  test.each([
    [
      '{"content":"x"}',
      /has no field "text"[\s\S]*its fields are content[\s\S]*rename the field content to text/,
    ],
    ['{"txet":"x"}', /rename the field txet to text/],
    ['{"messages":[]}', /conversations are for fine-tuning/],
    ['{"id":3}', /its fields are id[\s\S]*give every document a field text/],
    ["{}", /its fields are none/],
    ['"just a string"', /has no field "text"/],
    ["null", /has no field "text"/],
    ["[1,2]", /has no field "text"/],
    ['{"text":null}', /the field "text" is no text[\s\S]*it holds null/],
    ['{"text":["a","b"]}', /the field "text" is no text[\s\S]*it holds \["a","b"\]/],
  ])("are refused if they hold %s", async (line, wanted) => {
    const folder = await folderOf({ "a.jsonl": `{"text":"fine"}\n${line}\n` });
    const error = await refusal(texts(join(folder, "a.jsonl")));
    expect(error.message).toContain("a.jsonl, line 2");
    expect(error.message).toMatch(wanted);
  });
});

/** Written by Apache Arrow (test/golden/parquet/provenance.json). */
const parquet = (name: string): string => join("test", "golden", "parquet", name);

describe("Parquet files", () => {
  test("give a document per row of the column text, over groups and dictionaries, blank ones left out", async () => {
    expect(await read([parquet("texts.parquet")])).toEqual([
      { id: `${parquet("texts.parquet")}:0`, text: "A whale sings." },
      { id: `${parquet("texts.parquet")}:1`, text: "Größe und 鯨 🐋\nin two lines" },
      { id: `${parquet("texts.parquet")}:3`, text: "A whale sings." },
      { id: `${parquet("texts.parquet")}:4`, text: "The last one." },
    ]);
  });

  test("are refused if the column has another name, which is said", async () => {
    const error = await refusal(read([parquet("content.parquet")]));
    expect(error.message).toMatch(/row 0 has no field "text"[\s\S]*rename the field content to text/);
  });

  test("are refused by the name of a compression that cannot be undone", async () => {
    expect((await refusal(read([parquet("brotli.parquet")]))).message).toMatch(
      /cannot be read as Parquet[\s\S]*BROTLI/,
    );
  });

  test("are refused if they are cut or are something else", async () => {
    const whole = await readFile(parquet("texts.parquet"));
    const folder = await folderOf({
      "cut.parquet": whole.subarray(0, -9),
      "text.parquet": "no Parquet at all",
    });
    for (const name of ["cut.parquet", "text.parquet"])
      expect((await refusal(read([join(folder, name)]))).message).toContain(
        `${name} cannot be read as Parquet`,
      );
  });
});

test("a folder that may not be read is named, and not left out in silence", async () => {
  const folder = await folderOf({ "a.txt": "a" });
  await mkdir(join(folder, "closed"), { mode: 0o000 });
  await chmod(folder, 0o755);
  const module = JSON.stringify(join(import.meta.dirname, "documents.ts"));
  const script = `
    import { findDocumentFiles } from ${module};
    await findDocumentFiles([${JSON.stringify(folder)}]).catch((error) => console.log(error.code, error.what));`;
  // Root may read everything: then nobody tries.
  const user = process.getuid?.() === 0 ? { uid: 65534 } : {};
  const { stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    encoding: "utf8",
    ...user,
  });
  expect(stdout.trim()).toBe(`ERR_DATA ${join(folder, "closed")} cannot be read`);
});
