import { Tokenizer as Peer } from "@huggingface/tokenizers";
import { describe, expect, test } from "vitest";
import { makeRandom } from "../../../test/support/random.ts";
import { TokenizerError } from "../../base/index.ts";
import { readTokenizer, writeTokenizerConfig, writeTokenizerJson } from "../tokenizerJson.ts";
import { trainTokenizer } from "../trainer.ts";

interface File {
  added_tokens: { id: number; content: string }[];
  model: { vocab: Record<string, number>; merges: string[] };
}

const text =
  "It was the best of times, it was the worst of times;\n\nit was the age of wisdom… 12345 中文。\n";
const trained = await trainTokenizer([text, text], { vocabSize: 300 });
const config = writeTokenizerConfig(trained);

/** Our file with every id replaced; ids need not be in V3's order for a loader. */
function renumbered(newId: (id: number) => number): File {
  const file = JSON.parse(writeTokenizerJson(trained)) as File;
  for (const token of file.added_tokens) token.id = newId(token.id);
  const entries = Object.entries(file.model.vocab).map(([token, id]): [string, number] => [token, newId(id)]);
  file.model.vocab = Object.fromEntries(entries);
  return file;
}

function shuffledIds(): number[] {
  const random = makeRandom(5);
  const ids = Array.from({ length: trained.vocabSize }, (_, id) => id);
  for (let at = ids.length - 1; at > 0; at--) {
    const other = Math.floor(random() * (at + 1));
    [ids[at], ids[other]] = [ids[other]!, ids[at]!];
  }
  return ids;
}

describe("readVocabulary", () => {
  test("ids in any order give the ids that Hugging Face's library gives", () => {
    const ids = shuffledIds();
    const file = renumbered((id) => ids[id]!);
    const read = readTokenizer(JSON.stringify(file), config);
    const expected = Array.from(trained.encode(text), (id) => ids[id]!);
    expect([...read.encode(text)]).toEqual(expected);
    expect(new Peer(file, JSON.parse(config) as object).encode(text).ids).toEqual(expected);
    expect(read.decode(expected)).toBe(text);
    expect(read.bosId).toBe(ids[0]);
  });

  test("ids may leave gaps, which decode to an error and come back as gaps", () => {
    const read = readTokenizer(JSON.stringify(renumbered((id) => 3 * id + 1)), config);
    expect(read.vocabSize).toBe(3 * (trained.vocabSize - 1) + 2);
    expect([...read.encode(text)]).toEqual(Array.from(trained.encode(text), (id) => 3 * id + 1));
    expect(read.decode(read.encode(text))).toBe(text);
    for (const gap of [0, 2, 3, read.vocabSize - 2]) expect(() => read.bytesOf(gap)).toThrow(TokenizerError);
    expect(readTokenizer(writeTokenizerJson(read)).encode(text)).toEqual(read.encode(text));
  });

  test("an added token may stand in both lists, in one, or in the middle of the vocabulary", () => {
    const file = renumbered((id) => id);
    file.model.vocab["<｜User｜>"] = trained.userId!;
    file.added_tokens.push({ ...file.added_tokens[0]!, id: 5000, content: "<think>" });
    const read = readTokenizer(JSON.stringify(file), config);
    expect(read.idOf("<think>")).toBe(5000);
    expect([...read.encode("<think><｜User｜>", { allowSpecial: true })]).toEqual([5000, trained.userId]);
  });

  test("an added token with the text of an ordinary token shares its id or is damage", () => {
    const file = renumbered((id) => id);
    const [token, id] = Object.entries(file.model.vocab).find(([name]) => /^[a-z]{2}$/.test(name))!;
    file.added_tokens.push({ ...file.added_tokens[0]!, id, content: token });
    expect([...readTokenizer(JSON.stringify(file)).encode(`x${token}`, { allowSpecial: true })].at(-1)).toBe(
      id,
    );
    file.added_tokens.at(-1)!.id = 6000;
    expect(() => readTokenizer(JSON.stringify(file))).toThrow(`"${token}" has the ids 6000 and ${id}`);
  });

  test("a file cut at any place is refused, never read in part", () => {
    const json = writeTokenizerJson(trained).trimEnd();
    for (let length = 0; length < json.length; length += 97) {
      expect(() => readTokenizer(json.slice(0, length))).toThrow(TokenizerError);
    }
  });
});
