import { describe, expect, test } from "vitest";
import { corpus, jsonl } from "../../../test/support/corpus.ts";
import { isHeldOut, splitDocuments } from "./splitDocuments.ts";

describe("isHeldOut", () => {
  test("holds out every twentieth document, the last of each twenty", () => {
    const held = Array.from({ length: 61 }, (_, i) => i).filter((i) => isHeldOut(i, 20));
    expect(held).toEqual([19, 39, 59]);
  });

  test("holds out none at 0 and all at 1", () => {
    expect([0, 1, 19].map((i) => isHeldOut(i, 0))).toEqual([false, false, false]);
    expect([0, 1, 19].map((i) => isHeldOut(i, 1))).toEqual([true, true, true]);
  });
});

describe("splitDocuments", () => {
  test("sends each document to one side, in the order of the corpus", async () => {
    const texts = corpus(45);
    const { train, validation } = await splitDocuments([await jsonl(texts)], 20);
    expect(validation.map(({ text }) => text)).toEqual([texts[19], texts[39]]);
    expect(train.map(({ text }) => text)).toEqual(texts.filter((_, i) => i !== 19 && i !== 39));
  });

  test("counts documents, not lines: blank ones have no number", async () => {
    const texts = ["a", " ", "b", "", "c", "d"];
    const { validation } = await splitDocuments([await jsonl(texts)], 2);
    expect(validation.map(({ text }) => text)).toEqual(["b", "d"]);
  });

  test("holds out the end of a corpus of one document, from a line's beginning", async () => {
    const lines = Array.from({ length: 200 }, (_, i) => `line ${i}\n`);
    const { train, validation } = await splitDocuments([await jsonl([lines.join("")])], 20);
    expect(train[0]!.text + validation[0]!.text).toBe(lines.join(""));
    expect(train[0]!.text.endsWith("\n")).toBe(true);
    expect(validation[0]!.text.length / lines.join("").length).toBeCloseTo(0.05, 2);
    expect(validation[0]!.id).toMatch(/\(end\)$/);
  });

  test("cuts a document without lines between two characters", async () => {
    const text = "🐋".repeat(101);
    const { train, validation } = await splitDocuments([await jsonl([text])], 20);
    expect([train[0]!.text, validation[0]!.text].map((part) => part.isWellFormed())).toEqual([true, true]);
    expect(train[0]!.text + validation[0]!.text).toBe(text);
  });

  test("takes only the last of a few documents apart", async () => {
    const texts = [...corpus(3), "one\ntwo\n".repeat(50)];
    const { train, validation } = await splitDocuments([await jsonl(texts)], 20);
    expect(train.slice(0, 3).map(({ text }) => text)).toEqual(texts.slice(0, 3));
    expect(train[3]!.text + validation[0]!.text).toBe(texts[3]);
  });

  test("holds out nothing if it is told so", async () => {
    const { train, validation } = await splitDocuments([await jsonl(corpus(1))], 0);
    expect([train.length, validation.length]).toEqual([1, 0]);
  });

  test("stops at a signal", async () => {
    const files = [await jsonl(corpus(3))];
    await expect(splitDocuments(files, 20, AbortSignal.abort(new Error("stop")))).rejects.toThrow("stop");
  });
});
