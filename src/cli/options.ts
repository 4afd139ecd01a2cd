/** Numbers and choices from the command line, with the same three lines of error as everything else. */
import { UsageError } from "../base/index.ts";

/** A parser for a flag that takes a number of at least `least`. */
export function numberOption(flag: string, least: number, isWhole: boolean): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (
      text.trim() !== "" &&
      Number.isFinite(value) &&
      value >= least &&
      (!isWhole || Number.isSafeInteger(value))
    )
      return value;
    throw new UsageError(
      `${flag} ${JSON.stringify(text)} is not ${isWhole ? "a whole number" : "a number"} of at least ${least}`,
      {
        why: `${flag} takes ${isWhole ? "a whole number" : "a number"}`,
        fix: `write for example ${flag} ${Math.max(least, 1)}`,
        fields: { flag, text },
      },
    );
  };
}

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
