import { describe, expect, test } from "vitest";
import {
  byteTokenizer,
  FIRST_MERGE_ID,
  NUM_FIXED_IDS,
  tokenizerFromMerges,
  v3ByteIds,
} from "./vocabulary.ts";

describe("byteTokenizer", () => {
  const bytes = byteTokenizer();

  test("it has 3 specials, 256 bytes in V3's order, and the FIM and chat tokens last", () => {
    expect(bytes.vocabSize).toBe(264);
    expect([bytes.bosId, bytes.eosId, bytes.padId]).toEqual([0, 1, 2]);
    expect(bytes.decode([3])).toBe("!");
    expect([...bytes.bytesOf(258)]).toEqual([0xad]);
    expect(bytes.decode([259, 260, 261, 262, 263])).toBe(
      "<｜fim▁hole｜><｜fim▁begin｜><｜fim▁end｜><｜User｜><｜Assistant｜>",
    );
    expect(bytes.fim).toEqual({ holeId: 259, beginId: 260, endId: 261 });
    expect([bytes.userId, bytes.assistantId]).toEqual([262, 263]);
  });

  test("its ids are the text's bytes", () => {
    expect([...bytes.encode("Hi\n")]).toEqual([42, 75, 201]);
    expect(bytes.encode("é中😀")).toHaveLength(2 + 3 + 4);
  });
});

describe("tokenizerFromMerges", () => {
  test("the merge of rank r is id 259 + r, and the special tokens move behind", () => {
    const ids = v3ByteIds();
    const [a, b] = [ids[0x61]!, ids[0x62]!];
    const tokenizer = tokenizerFromMerges([
      [a, b],
      [FIRST_MERGE_ID, a],
    ]);
    expect([...tokenizer.encode("ab aba b")]).toEqual([259, ids[0x20], 260, ids[0x20], b]);
    expect(tokenizer.vocabSize).toBe(NUM_FIXED_IDS + 2);
    expect(tokenizer.idOf("<｜Assistant｜>")).toBe(tokenizer.vocabSize - 1);
  });
});
