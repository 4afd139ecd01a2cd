/** What the documents name is there: files, links, verbs and their flags. */
import { existsSync, globSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Command } from "commander";
import { describe, expect, test } from "vitest";
import { makeProgram } from "../src/cli/main.ts";

const root = join(import.meta.dirname, "..");
const documents = [
  ...["README.md", "README.zh-CN.md", "SECURITY.md", "NOTICE"],
  ...["bench/peers/README.md", "test/golden/README.md"],
  ...globSync("docs/*.md", { cwd: root }),
];
const texts = documents.map((path): [string, string] => [path, readFileSync(join(root, path), "utf8")]);

/** Where a name in a document may be meant from: the repository, the document's folder, the room it is about. */
function isThere(name: string, document: string): boolean {
  const places = [root, join(root, dirname(document)), join(root, "src"), join(root, "src/text")];
  return places.some((place) => existsSync(join(place, name)) || globSync(name, { cwd: place }).length > 0);
}

/** Files that a run, a checkpoint or a tokenizer leaves behind. */
const written =
  /^(run|config|generation_config|tokenizer|tokenizer_config|state|manifest|step|train)\.json$|^report\.(md|html)$|^events(\.superseded)?\.jsonl$/;

describe.each(texts)("%s", (document, text) => {
  test("names and links only files that are there", () => {
    const links = [...text.matchAll(/\]\(([^)#\s]+)[^)]*\)/g)]
      .map(([, target]) => target!)
      .filter((target) => !target.startsWith("http"))
      .filter((target) => !existsSync(join(root, dirname(document), target)));
    // A bare name stands beside a path in the same cell of a table: only what is nowhere in the repository is wrong.
    const named = [...text.matchAll(/`((?:[\w.*@-]+\/)*[\w.*-]+\.(?:ts|rs|py|mjs|sh|md|json|jsonl|html))`/g)]
      .map(([, name]) => name!)
      .filter((name) => !written.test(name))
      .filter((name) => !isThere(name, document))
      .filter(
        (name) =>
          name.includes("/") ||
          globSync(`{src,test,bench,native/kernels}/**/${name}`, { cwd: root }).length === 0,
      );
    expect([...links, ...named]).toEqual([]);
  });

  test("calls only verbs and flags that minke has", () => {
    const calls = [...text.matchAll(/\bminke ((?:[a-z]+ ?)+)([^`\n#]*)/g)];
    const wrong = calls.flatMap(([call, words, rest]) => {
      const path = words!.trim().split(" ");
      const command = deepest(makeProgram(), path);
      // Prose such as "minke is": no verb, and no flags that would have to belong to one.
      if (command === null) return /--[a-z]/.test(rest!) ? [call] : [];
      const known = new Set(["--help", ...command.options.map(({ long }) => long)]);
      return [...rest!.matchAll(/(?<=^|\s)--[a-z\d-]+/g)]
        .filter(([flag]) => !known.has(flag))
        .map(([flag]) => `${call}: ${flag}`);
    });
    expect(wrong).toEqual([]);
  });
});

/** The command that the words lead to; null if the first of them leads to none. */
function deepest(program: Command, words: readonly string[]): Command | null {
  let command = program;
  for (const word of words) {
    const child = command.commands.find((candidate) => candidate.name() === word);
    if (child === undefined) break;
    command = child;
  }
  return command === program ? null : command;
}

test("the Chinese README has the files, commands, figures and tables of the English one", () => {
  const [english, chinese] = ["README.md", "README.zh-CN.md"].map((path) => {
    const text = texts.find(([name]) => name === path)![1];
    return {
      headings: [...text.matchAll(/^## /gm)].length,
      rows: [...text.matchAll(/^\|/gm)].length,
      code: [...new Set([...text.matchAll(/`([^`\n]+)`/g)].map(([, code]) => code!))].sort(),
      links: [...new Set([...text.matchAll(/\]\(([^)]+)\)/g)].map(([, target]) => target!))].sort(),
    };
  });
  const own = (targets: readonly string[]): string[] => targets.filter((target) => !/^README/.test(target));
  expect({ ...chinese, links: own(chinese!.links) }).toEqual({ ...english, links: own(english!.links) });
});
