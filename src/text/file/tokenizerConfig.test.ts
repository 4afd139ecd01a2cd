import { describe, expect, test } from "vitest";
import { v3TokenizerConfigJson } from "../../../test/support/v3Tokenizer.ts";
import { TokenizerError } from "../../base/index.ts";
import { readTokenizerConfig, v3TokenizerConfig } from "./tokenizerConfig.ts";

describe("readTokenizerConfig", () => {
  test("ours is V3's, but for the chat template", () => {
    const released = readTokenizerConfig(v3TokenizerConfigJson);
    const { chat_template: template, ...rest } = released.content;
    expect(template).toContain("<｜Assistant｜>");
    expect({ ...released, content: rest }).toEqual(v3TokenizerConfig);
  });

  test("a token may be a string, an object or missing", () => {
    const config = readTokenizerConfig(
      '{"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": null}',
    );
    expect(config).toMatchObject({ bosToken: "<s>", eosToken: "</s>", padToken: "</s>" });
    expect(readTokenizerConfig("{}")).toMatchObject({ bosToken: v3TokenizerConfig.bosToken });
  });

  test.each([
    '{"bos_token": 3}',
    '{"eos_token": {"text": "x"}}',
    "[]",
    "null",
    '{"add_eos_token": true}',
    "{",
  ])("%s is refused", (text) => {
    expect(() => readTokenizerConfig(text)).toThrow(TokenizerError);
  });

  test("what would change the text is named, with its value", () => {
    expect(() =>
      readTokenizerConfig('{"clean_up_tokenization_spaces": true}'),
    ).toThrowErrorMatchingInlineSnapshot(`
      [TokenizerError: tokenizer_config.json: clean_up_tokenization_spaces is true
        why: V3 has false here, and nothing else is supported
        fix: set clean_up_tokenization_spaces to false, and add EOS or clean the text in your own program]
    `);
  });

  test("a file that breaks off says so", () => {
    expect(() => readTokenizerConfig(v3TokenizerConfigJson.slice(0, 100))).toThrow(
      "tokenizer_config.json is not JSON",
    );
  });
});
