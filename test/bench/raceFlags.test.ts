import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { parseRaceFlags } from "../../bench/raceFlags.ts";
import { scratchFolder } from "../support/scratchFolder.ts";

async function textFile(): Promise<string> {
  const path = join(await scratchFolder(), "tinyshakespeare.txt");
  await writeFile(path, "First Citizen:\n");
  return path;
}

describe("parseRaceFlags", () => {
  test("five seeds of the short race and one of the long by default; a race that is not asked for has none", async () => {
    const text = await textFile();
    expect(parseRaceFlags(["--text", text])).toMatchObject({
      text,
      seeds: { short: 5, long: 1 },
      threads: null,
    });
    const flags = parseRaceFlags(["--text", text, "--only", "long", "--long-seeds", "2", "--threads", "1"]);
    expect(flags).toMatchObject({ seeds: { short: 0, long: 2 }, threads: 1 });
  });

  test("the command that rows are kept under has every flag, and not where the text lies", async () => {
    const text = await textFile();
    const { command } = parseRaceFlags(["--text", text, "--seeds", "2", "--only=short", "--threads", "1"]);
    expect(command).toBe(
      "npm run bench:shakespeare -- --text tinyshakespeare.txt --seeds 2 --only=short --threads 1",
    );
    expect(parseRaceFlags([`--text=${text}`]).command).toBe(
      "npm run bench:shakespeare -- --text=tinyshakespeare.txt",
    );
  });

  test.each([
    [["--only", "middle"], "--only middle is not one of short, long"],
    [["--seeds", "0"], '--seeds "0" is not a whole number from 1 to 100'],
    [["--seeds", "five"], '--seeds "five" is not a whole number'],
    [["--long-seeds", "1.5"], '--long-seeds "1.5" is not a whole number'],
    [["--threads", ""], '--threads "" is not a whole number from 1 to 1024'],
    [["--rounds", "3"], "Unknown option '--rounds'"],
  ])("%j is refused before anything runs", async (words, message) => {
    const text = await textFile();
    expect(() => parseRaceFlags(["--text", text, ...words])).toThrow(message);
  });

  test("a text that is not there is told where to get it", () => {
    expect(() => parseRaceFlags([])).toThrow("--text is missing: give the path of tinyshakespeare");
    expect(() => parseRaceFlags(["--text", "/nowhere/x.txt"])).toThrow("github.com/karpathy/char-rnn");
  });
});
