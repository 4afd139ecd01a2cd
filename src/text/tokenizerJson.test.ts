import { Tokenizer as Peer } from "@huggingface/tokenizers";
import { describe, expect, test } from "vitest";
import { v3TokenizerConfigJson, v3TokenizerJson } from "../../test/support/v3Tokenizer.ts";
import { TokenizerError } from "../base/index.ts";
import { readTokenizer, writeTokenizerConfig, writeTokenizerJson } from "./tokenizerJson.ts";
import { trainTokenizer } from "./trainer.ts";
import { byteTokenizer, tokenizerFromMerges } from "./vocabulary.ts";

const poem =
  "Shall I compare thee to a summer's day?\n\nThou art more lovely and more temperate: 12345 中文。\n";
const ours = await trainTokenizer([poem.repeat(2)], { vocabSize: 300 });
const oursJson = writeTokenizerJson(ours);

/** A deep copy of our file with one value changed; `undefined` takes the key away. */
function changed(path: string, value: unknown): string {
  const content = JSON.parse(oursJson) as Record<string, unknown>;
  const keys = path.split(".");
  const last = keys.pop()!;
  const owner = keys.reduce((inner, key) => inner[key] as Record<string, unknown>, content);
  owner[last] = value;
  return JSON.stringify(content);
}

function errorOf(action: () => unknown): TokenizerError {
  try {
    action();
  } catch (error) {
    if (error instanceof TokenizerError) return error;
    throw error;
  }
  throw new Error("it did not throw");
}

describe("readTokenizer", () => {
  test("V3's released file, read and written, has the content that it had", () => {
    const written = writeTokenizerJson(readTokenizer(v3TokenizerJson));
    expect(JSON.parse(written)).toEqual(JSON.parse(v3TokenizerJson));
  });

  test("V3's tokenizer_config.json comes back with all its keys, chat template included", () => {
    const tokenizer = readTokenizer(v3TokenizerJson, v3TokenizerConfigJson);
    expect(JSON.parse(writeTokenizerConfig(tokenizer))).toEqual(JSON.parse(v3TokenizerConfigJson));
  });

  test("what we write we read, with the same ids", () => {
    for (const tokenizer of [ours, byteTokenizer()]) {
      const read = readTokenizer(writeTokenizerJson(tokenizer), writeTokenizerConfig(tokenizer));
      expect(read.vocabulary).toEqual(tokenizer.vocabulary);
      expect(read.encode(poem)).toEqual(tokenizer.encode(poem));
    }
  });

  test("merges may also be pairs, as newer files have them", () => {
    const merges = (JSON.parse(oursJson) as { model: { merges: string[] } }).model.merges;
    const read = readTokenizer(
      changed(
        "model.merges",
        merges.map((merge) => merge.split(" ")),
      ),
    );
    expect(read.vocabulary).toEqual(ours.vocabulary);
  });

  test("a token that is called __proto__ is a token like any other", () => {
    const [low, p, r, o, t] = [..."_prot"].map((letter) => byteTokenizer().encode(letter)[0]!);
    const pairs = [
      [low, low],
      [p, r],
      [260, o],
      [t, o],
      [261, 262],
      [259, 263],
      [264, 259],
    ] as [number, number][];
    const tokenizer = tokenizerFromMerges(pairs);
    expect(tokenizer.decode([265])).toBe("__proto__");
    expect(readTokenizer(writeTokenizerJson(tokenizer)).vocabulary).toEqual(tokenizer.vocabulary);
  });

  test.each<[string, unknown]>([
    ["version", "2.0"],
    ["truncation", { max_length: 512 }],
    ["padding", { strategy: "BatchLongest" }],
    ["normalizer", { type: "NFC" }],
    ["normalizer.normalizers", [{ type: "Lowercase" }]],
    ["pre_tokenizer", null],
    ["pre_tokenizer", { type: "ByteLevel", add_prefix_space: false, use_regex: true }],
    ["pre_tokenizer.pretokenizers.0.pattern.Regex", "\\p{N}"],
    ["pre_tokenizer.pretokenizers.1.behavior", "Removed"],
    ["pre_tokenizer.pretokenizers.2.invert", true],
    ["pre_tokenizer.pretokenizers.3.use_regex", true],
    ["pre_tokenizer.pretokenizers.3.add_prefix_space", true],
    ["post_processor", { type: "TemplateProcessing", single: [], pair: [], special_tokens: {} }],
    ["decoder", { type: "Metaspace" }],
    ["decoder", null],
    ["model.type", "Unigram"],
    ["model.dropout", 0.1],
    ["model.unk_token", "<unk>"],
    ["model.byte_fallback", true],
    ["model.ignore_merges", true],
    ["model.fuse_unk", true],
    ["model.continuing_subword_prefix", "##"],
    ["model.end_of_word_suffix", "</w>"],
    ["model.vocab", []],
    ["model.merges", "none"],
    ["model.cache_capacity", 3],
    ["added_tokens.0.lstrip", true],
    ["added_tokens.0.rstrip", true],
    ["added_tokens.0.single_word", true],
    ["added_tokens.0.content", ""],
    ["added_tokens.0.id", -1],
    ["added_tokens", undefined],
    ["surprise", 1],
  ])("a file whose %s is %j is refused by name", (path, value) => {
    const error = errorOf(() => readTokenizer(changed(path, value)));
    expect(error.what).toContain(path);
    expect(error.fix).toContain("minke tokenizer train");
  });

  test.each<[string, unknown, string]>([
    ["model.vocab.Ġ", 5000000, "id 5000000"],
    ["model.vocab.Ġ", 1.5, "id 1.5"],
    ["model.vocab.Ġ", 42, "id 42 stands for"],
    ["model.vocab.Ġ", undefined, "lacks the byte 32"],
    ["model.vocab.a b", 999, 'vocab has the token "a b"'],
    ["model.vocab.", 999, 'vocab has the token ""'],
    ["model.vocab.<｜User｜>", 999, "has the ids 298 and 999"],
    ["model.vocab.zz", 0, "id 0 stands for"],
    ["model.merges.0", "Ġ", 'merge 0 is "Ġ"'],
    ["model.merges.0", ["a", 1], 'merge 0 is ["a",1]'],
    ["model.merges.1", "a b c", 'merge 1 is "a b c"'],
    ["model.merges.1", "q z", 'needs the token "qz"'],
    ["model.merges.1", "qq z", 'needs the token "qq"'],
    ["added_tokens.1.id", 0, "id 0 stands for"],
    ["added_tokens.1.content", "<｜begin▁of▁sentence｜>", "has the ids 0 and 1"],
  ])("a file whose %s is %j is damaged, and the error shows where", (path, value, what) => {
    const error = errorOf(() => readTokenizer(changed(path, value)));
    expect(error.what).toContain(what);
    expect(error.fix).toContain("damaged");
  });

  test("a merge that stands there twice is damage", () => {
    const { merges } = (JSON.parse(oursJson) as { model: { merges: string[] } }).model;
    const error = errorOf(() => readTokenizer(changed("model.merges", [...merges, merges[3]])));
    expect(error.what).toContain(`merge ${merges.length}`);
  });

  test("the messages say what, why and what to do", () => {
    expect(() => readTokenizer(changed("model.type", "Unigram"))).toThrowErrorMatchingInlineSnapshot(`
      [TokenizerError: tokenizer.json: model.type is "Unigram"
        why: byte-level BPE with DeepSeek-V3's pre-tokenizer is read, all else would give other ids: Invalid input: expected "BPE"
        fix: use the tokenizer.json of a model of the V3 family, or train one with \`minke tokenizer train\`]
    `);
    expect(() => readTokenizer(changed("model.vocab.Ġ", 42))).toThrowErrorMatchingInlineSnapshot(`
      [TokenizerError: tokenizer.json: id 42 stands for "H" and "Ġ"
        why: it can mean one
        fix: the file is damaged: copy it from the checkpoint again]
    `);
    expect(() => readTokenizer(oursJson.slice(0, 5000))).toThrow(TokenizerError);
    expect(() => readTokenizer("")).toThrow("tokenizer.json is not JSON");
    expect(() => readTokenizer("[]")).toThrow("its content is []");
  });

  test("a file without the BOS that its config names is refused", () => {
    const config = JSON.stringify({ bos_token: "<s>" });
    expect(errorOf(() => readTokenizer(oursJson, config)).fields).toEqual({ content: "<s>" });
  });
});

describe("writeTokenizerJson", () => {
  test("the file that we write loads in Hugging Face's JavaScript library and gives the same ids", () => {
    for (const tokenizer of [ours, byteTokenizer()]) {
      const json: unknown = JSON.parse(writeTokenizerJson(tokenizer));
      const peer = new Peer(json as object, JSON.parse(writeTokenizerConfig(tokenizer)) as object);
      for (const text of [
        poem,
        "<｜User｜>hi<｜Assistant｜>",
        "  x\n\n\ty\u0085é 😀🎉 한국어 ٣½",
        "don't!?\r\n",
      ]) {
        const ids = [...tokenizer.encode(text, { allowSpecial: true })];
        expect(peer.encode(text, { add_special_tokens: false }).ids).toEqual(ids);
        expect(peer.decode(ids)).toBe(text);
      }
    }
  });

  test("its vocabulary is in V3's order: 3 specials, 256 bytes, merges; FIM and chat tokens only added", () => {
    const file = JSON.parse(oursJson) as {
      model: { vocab: Record<string, number>; merges: string[] };
      added_tokens: { id: number; special: boolean }[];
    };
    const v3 = JSON.parse(v3TokenizerJson) as typeof file;
    const { vocab, merges } = file.model;
    const bytes = Object.entries(vocab).filter(([, id]) => id < 259);
    expect(bytes).toHaveLength(259);
    for (const [symbol, id] of bytes) expect(v3.model.vocab[symbol]).toBe(id);
    for (const [rank, merge] of merges.entries()) expect(vocab[merge.replace(" ", "")]).toBe(259 + rank);
    expect(Math.max(...Object.values(vocab))).toBe(294);
    expect(file.added_tokens.map(({ id }) => id)).toEqual([0, 1, 2, 295, 296, 297, 298, 299]);
    expect(file.added_tokens.map(({ special }) => special).indexOf(false)).toBe(3);
  });
});
