/** What becomes of a command whose words reach nobody: a pipe that was closed, a terminal that is gone, a full disk. */
import { BaseError, DiskError } from "../base/index.ts";
import { errorCode, explainFileError, isReaderGone } from "../run/index.ts";

/** Only what is used of a stream, so that a test can break one. */
export interface OutputStream {
  on(event: "error", listener: (error: Error) => void): unknown;
  listenerCount(event: "error"): number;
}

/**
 * A reader that has seen enough (`| head`) is no error and ends the command. One that listens to the stream itself
 * (train: a run is worth more than its reader) goes on, whatever happened to the stream.
 *
 * @param tell  writes the three lines of an error
 * @param exit  ends the process
 */
export function guardOutput(
  stdout: OutputStream,
  stderr: OutputStream,
  tell: (error: BaseError) => void,
  exit: (code: number) => void,
): void {
  // Nobody is left to be told that nobody can be told anything.
  stderr.on("error", () => undefined);
  let isTold = false;
  stdout.on("error", (error) => {
    const goesOn = stdout.listenerCount("error") > 1;
    if (isReaderGone(error)) {
      if (!goesOn) exit(0);
      return;
    }
    if (!isTold) tell(lostOutput(error, goesOn));
    isTold = true;
    if (!goesOn) exit(1);
  });
}

function lostOutput(error: Error, goesOn: boolean): BaseError {
  const explained = explainFileError(error, "standard output", "print");
  const why = BaseError.isInstance(explained) ? explained.why : error.message;
  return new DiskError("standard output takes no more text", {
    why: errorCode(error) === "ENOSPC" ? "the disk that it is written to is full" : why,
    fix: goesOn
      ? "nothing: the run goes on, and its folder's events.jsonl has all of it"
      : "free some space, or send the output elsewhere",
    cause: error,
  });
}
