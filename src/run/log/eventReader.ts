/**
 * Reading a run's events. The log holds one consistent history: what a resumed run did over again was taken out by
 * eventLog.ts when it was resumed, so a reader has nothing to put right.
 */
import { parseEvent, RunError, type RunEvent } from "../../base/index.ts";
import { errorCode } from "../files/fileErrors.ts";
import { readLines } from "./eventLines.ts";

/**
 * The events of a log, oldest first.
 *
 * @param path    an events.jsonl
 * @param onTorn  told of a last line that is not whole; by default it is left out without a word, because a
 *                running writer may just be about to end it
 * @throws        {RunError} for a damaged line in the middle, with its number, or if there is no log
 */
export async function* readEvents(
  path: string,
  onTorn: (text: string) => void = () => {},
): AsyncGenerator<RunEvent, void, void> {
  try {
    for await (const { text, number, isComplete } of readLines(path)) {
      if (isComplete) yield parseEvent(text, `${path} line ${number}`);
      else onTorn(text);
    }
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
    throw new RunError(`there is no event log at ${path}`, {
      why: "a run writes all that happens to events.jsonl in its folder",
      fix: "name the folder of a run; `minke runs list` shows them",
      fields: { path },
      cause: error,
    });
  }
}
