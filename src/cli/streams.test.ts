import { EventEmitter } from "node:events";
import { describe, expect, test } from "vitest";
import type { BaseError } from "../base/index.ts";
import { guardOutput } from "./streams.ts";

function guarded(): {
  stdout: EventEmitter;
  stderr: EventEmitter;
  told: BaseError[];
  exits: number[];
  fail: (stream: EventEmitter, code: string) => void;
} {
  const [stdout, stderr] = [new EventEmitter(), new EventEmitter()];
  const [told, exits]: [BaseError[], number[]] = [[], []];
  guardOutput(
    stdout,
    stderr,
    (error) => told.push(error),
    (code) => exits.push(code),
  );
  const fail = (stream: EventEmitter, code: string): void => {
    stream.emit("error", Object.assign(new Error(`write ${code}`), { code }));
  };
  return { stdout, stderr, told, exits, fail };
}

describe("guardOutput", () => {
  test.each(["EPIPE", "EIO"])("a reader that is gone (%s) ends the command without a word", (code) => {
    const { stdout, told, exits, fail } = guarded();
    fail(stdout, code);
    expect([told, exits]).toEqual([[], [0]]);
  });

  test("a full disk ends the command with one error", () => {
    const { stdout, told, exits, fail } = guarded();
    fail(stdout, "ENOSPC");
    fail(stdout, "ENOSPC");
    expect(told.map(({ what, why }) => [what, why])).toEqual([
      ["standard output takes no more text", "the disk that it is written to is full"],
    ]);
    expect(exits[0]).toBe(1);
  });

  test("one that listens itself goes on, and is told once why nothing is printed", () => {
    const { stdout, told, exits, fail } = guarded();
    stdout.on("error", () => undefined);
    for (const code of ["EPIPE", "EIO", "ENOSPC", "ENOSPC"]) fail(stdout, code);
    expect(told.map(({ fix }) => fix)).toEqual([expect.stringContaining("the run goes on")]);
    expect(exits).toEqual([]);
  });

  test("standard error that nobody reads ends nothing", () => {
    const { stderr, told, exits, fail } = guarded();
    for (const code of ["EPIPE", "ENOSPC"]) fail(stderr, code);
    expect([told, exits]).toEqual([[], []]);
  });
});
