import { expect, test } from "vitest";
import * as text from "./index.ts";

test("the room gives out one class, two makers, and readers and writers of files", () => {
  expect(Object.keys(text).sort()).toEqual([
    "Tokenizer",
    "byteTokenizer",
    "readTokenizer",
    "trainTokenizer",
    "writeTokenizerConfig",
    "writeTokenizerJson",
  ]);
});
