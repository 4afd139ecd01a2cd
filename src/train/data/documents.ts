/**
 * Documents from what people have: text files, folders of them, JSON lines, Parquet.
 *
 * One text file is one document; a line of .jsonl and a row of .parquet are one each (column `text`). A folder is
 * read recursively in the order of its paths, so that the same folder gives the same documents.
 */
import type { Dirent } from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path";
import { asyncBufferFromFile, parquetReadObjects } from "hyparquet";
import { DataError, nearestName } from "../../base/index.ts";

export interface Document {
  /** Path, with the line or row where a file holds several. */
  readonly id: string;
  readonly text: string;
}

export const DOCUMENT_KINDS: readonly string[] = [".txt", ".md", ".jsonl", ".parquet"];

/** Files below the given paths that hold documents, and how many of other kinds lie beside them. */
export interface DocumentFiles {
  readonly files: readonly string[];
  readonly skipped: number;
}

/** @throws {DataError} if a path does not exist, or nothing below it is of a known kind */
export async function findDocumentFiles(paths: readonly string[]): Promise<DocumentFiles> {
  const files: string[] = [];
  let skipped = 0;
  for (const path of paths) {
    if ((await kindOf(path)) === "file") {
      requireKind(path);
      files.push(path);
      continue;
    }
    const entries = await entriesBelow(path);
    const found = entries
      // Links to files count as files; `stat` below a link to a folder would not know where to end.
      .filter((entry) => entry.isFile() || entry.isSymbolicLink())
      .map((entry) => join(entry.parentPath, entry.name));
    const known = found.filter((file) => DOCUMENT_KINDS.includes(extname(file).toLowerCase())).sort();
    skipped += found.length - known.length;
    files.push(...known);
  }
  if (files.length > 0) return { files, skipped };
  throw new DataError(`${paths.join(", ")} holds no documents`, {
    why: `${skipped} files were found, none of them is one of ${DOCUMENT_KINDS.join(", ")}`,
    fix: "give --data a text file, a folder of text files, a .jsonl or a .parquet file",
    fields: { paths, skipped },
  });
}

/** @throws {DataError} naming the folder that may not be read: a part of the data is not left out in silence */
async function entriesBelow(path: string): Promise<readonly Dirent[]> {
  try {
    return await readdir(path, { recursive: true, withFileTypes: true });
  } catch (cause) {
    const folder = cause instanceof Error && "path" in cause ? String(cause.path) : path;
    throw new DataError(`${folder} cannot be read`, {
      why: cause instanceof Error ? cause.message : String(cause),
      fix: "give yourself the right to read it, or give --data the files and folders beside it",
      fields: { path: folder },
      cause,
    });
  }
}

/** The documents of the files, one after another; empty ones are left out. */
export async function* readDocuments(files: readonly string[]): AsyncGenerator<Document, void, undefined> {
  let hasText = false;
  for (const file of files) {
    for await (const document of readFileDocuments(file)) {
      if (document.text.trim() === "") continue;
      hasText = true;
      yield document;
    }
  }
  if (hasText) return;
  throw new DataError(
    files.length === 1 ? `${files[0]} holds no text` : `${files.length} files hold no text`,
    {
      why: "a model learns from text, and every document is empty",
      fix: "give --data a file with text in it",
      fields: { files },
    },
  );
}

async function* readFileDocuments(path: string): AsyncGenerator<Document, void, undefined> {
  switch (extname(path).toLowerCase()) {
    case ".jsonl":
      yield* jsonLines(path, await readText(path));
      return;
    case ".parquet":
      yield* parquetRows(path);
      return;
    default:
      yield { id: path, text: await readText(path) };
  }
}

async function kindOf(path: string): Promise<"file" | "folder"> {
  const found = await stat(path).catch(() => null);
  if (found !== null) return found.isDirectory() ? "folder" : "file";
  const siblings = await readdir(dirname(path)).catch(() => []);
  const nearest = nearestName(basename(path), siblings);
  throw new DataError(`${path} does not exist`, {
    why: "the path was given as training data",
    fix: nearest === undefined ? "check the path" : `did you mean ${join(dirname(path), nearest)}?`,
    fields: { path, nearest },
  });
}

function requireKind(path: string): void {
  if (DOCUMENT_KINDS.includes(extname(path).toLowerCase())) return;
  throw new DataError(`${path} is not of a kind that can be read`, {
    why: `documents come from ${DOCUMENT_KINDS.join(", ")}`,
    fix: "rename it to .txt if it is plain text",
    fields: { path },
  });
}

/** @throws {DataError} naming the byte, if the file is no UTF-8 text */
async function readText(path: string): Promise<string> {
  const bytes = await readFile(path);
  const zero = bytes.indexOf(0);
  if (zero >= 0) throw binary(path, zero, "it has a zero byte there");
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: false }).decode(bytes);
  } catch (cause) {
    if (!(cause instanceof TypeError)) throw cause;
    throw binary(path, firstBadByte(bytes), "the byte there does not continue any UTF-8 character");
  }
}

function binary(path: string, offset: number, why: string): DataError {
  return new DataError(`${path} is no text: byte ${offset}`, {
    why,
    fix: "convert the file to UTF-8, or leave it out",
    fields: { path, offset },
  });
}

/** The longest prefix that decodes, by halving. */
function firstBadByte(bytes: Uint8Array): number {
  let good = 0;
  let bad = bytes.length;
  while (bad - good > 1) {
    const middle = (good + bad) >>> 1;
    try {
      // Streaming: a character that is cut at the end is no mistake.
      new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(0, middle), { stream: true });
      good = middle;
    } catch {
      bad = middle;
    }
  }
  return good;
}

function* jsonLines(path: string, text: string): Generator<Document, void, undefined> {
  let number = 0;
  for (const line of text.split("\n")) {
    number++;
    if (line.trim() === "") continue;
    yield {
      id: `${path}:${number}`,
      text: textField(parseLine(path, number, line), `${path}, line ${number}`),
    };
  }
}

function parseLine(path: string, number: number, line: string): unknown {
  try {
    return JSON.parse(line);
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    throw new DataError(`${path}, line ${number} is not JSON`, {
      why: cause.message,
      fix: 'each line of a .jsonl file is one object: {"text": "..."}',
      fields: { path, line: number },
      cause,
    });
  }
}

async function* parquetRows(path: string): AsyncGenerator<Document, void, undefined> {
  const file = await asyncBufferFromFile(path);
  const rows = await parquetReadObjects({ file }).catch((cause: unknown) => {
    throw new DataError(`${path} cannot be read as Parquet`, {
      why: cause instanceof Error ? cause.message : String(cause),
      fix: "check that the file is whole and of the Parquet format",
      fields: { path },
      cause,
    });
  });
  for (const [i, row] of rows.entries())
    yield { id: `${path}:${i}`, text: textField(row, `${path}, row ${i}`) };
}

function textField(value: unknown, where: string): string {
  const record = (typeof value === "object" && value !== null ? value : {}) as Record<string, unknown>;
  if (typeof record["text"] === "string") return record["text"];
  const keys = Object.keys(record);
  if (keys.includes("text")) {
    throw new DataError(`${where}: the field "text" is no text`, {
      why: `it holds ${JSON.stringify(record["text"])?.slice(0, 40) ?? "nothing"}`,
      fix: "give every document a field text that is a string",
      fields: { where, keys },
    });
  }
  const nearest = nearestName("text", keys) ?? keys.find((key) => typeof record[key] === "string");
  throw new DataError(`${where} has no field "text"`, {
    why: keys.includes("messages")
      ? "conversations are for fine-tuning; pre-training reads plain text"
      : `its fields are ${keys.join(", ") || "none"}`,
    fix: nearest === undefined ? "give every document a field text" : `rename the field ${nearest} to text`,
    fields: { where, keys },
  });
}
