/** Small texts for runs of a few seconds: enough structure to learn, enough variety for a vocabulary. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { makeRandom } from "./random.ts";

const words =
  "whale ocean deep song blue north ice wave calf mother salt moon tide ship light far slow cold long night".split(
    " ",
  );
const verbs = "sings swims dives waits listens turns rises sleeps follows answers".split(" ");

/** Sentences of a small language, the same for the same seed. */
export function sentences(count: number, seed: number = 1): string {
  const random = makeRandom(seed);
  const pick = (list: readonly string[]): string => list[Math.floor(random() * list.length)]!;
  return Array.from(
    { length: count },
    (_, i) =>
      `The ${pick(words)} ${pick(verbs)} in the ${pick(words)}, and ${i % 7 === 0 ? i : "the"} ${pick(words)} ${pick(verbs)}.\n`,
  ).join("");
}

/** Writes `text.txt` into the folder and returns its path. */
export async function writeTrainingText(folder: string, count: number = 400): Promise<string> {
  const path = join(folder, "text.txt");
  await writeFile(path, sentences(count));
  return path;
}
