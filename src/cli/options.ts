/** Numbers and choices from the command line, with the same three lines of error as everything else. */
import { UsageError } from "../base/index.ts";

/** A parser for a flag that takes a number from `least` to `most`. */
export function numberOption(
  flag: string,
  least: number,
  isWhole: boolean,
  most: number = Number.POSITIVE_INFINITY,
): (text: string) => number {
  const kind = isWhole ? "a whole number" : "a number";
  const range = most === Number.POSITIVE_INFINITY ? `of at least ${least}` : `from ${least} to ${most}`;
  return (text) => {
    const value = Number(text);
    const isRight = isWhole ? Number.isSafeInteger(value) : Number.isFinite(value);
    if (text.trim() !== "" && isRight && value >= least && value <= most) return value;
    throw new UsageError(`${flag} ${JSON.stringify(text)} is not ${kind} ${range}`, {
      why: `${flag} takes ${kind} ${range}`,
      fix: `write for example ${flag} ${Math.max(least, 1)}`,
      fields: { flag, text },
    });
  };
}

/** `--threads`: no processor has more, and a machine asked for a million of them is busy for a while saying no. */
export const threadsOption: (text: string) => number = numberOption("--threads", 1, true, 1024);

/** A parser for a flag that takes one of a few words. */
export function choiceOption<const T extends string>(
  flag: string,
  choices: readonly T[],
): (text: string) => T {
  return (text) => {
    const found = choices.find((choice) => choice === text);
    if (found !== undefined) return found;
    throw new UsageError(`${flag} ${JSON.stringify(text)} is not one of ${choices.join(", ")}`, {
      why: `${flag} takes one of them`,
      fix: `write for example ${flag} ${choices[0]}`,
      fields: { flag, text },
    });
  };
}

/** A parser for a flag that may be given more than once. */
export function listOption(text: string, before: readonly string[] = []): readonly string[] {
  return [...before, text];
}
