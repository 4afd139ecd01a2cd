import { mkdir } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { DiskError, RunError } from "../../base/index.ts";
import { errorCode, explained, explainFileError } from "./fileErrors.ts";

const refusal = (code: string) => Object.assign(new Error(code), { code });

describe("explainFileError", () => {
  test("a full disk is a DiskError that says what is safe and how to go on", () => {
    const error = explainFileError(refusal("ENOSPC"), "/runs/a/events.jsonl", "write events") as DiskError;
    expect(error).toBeInstanceOf(DiskError);
    expect(error.message).toMatchInlineSnapshot(`
      "cannot write events: no space left for /runs/a/events.jsonl
        why: the disk, or your share of it, is full; what was written before is whole
        fix: free some space on the disk of /runs/a, then run the same command with --resume"
    `);
    expect(error.cause).toMatchObject({ code: "ENOSPC" });
  });

  test.each(["EROFS", "EACCES", "EPERM"])("%s is a folder that may not be written", (code) => {
    const error = explainFileError(refusal(code), "/runs/a", "write events") as RunError;
    expect(error).toBeInstanceOf(RunError);
    expect(error.fields).toEqual({ path: "/runs/a", code });
  });

  test.each(["ENOTDIR", "EEXIST"])("%s is a file in the way", (code) => {
    expect(explainFileError(refusal(code), "/runs/a", "make it")).toBeInstanceOf(RunError);
  });

  test.each([
    ["ENOENT", /x is not there/],
    ["EISDIR", /x is a folder/],
  ])("%s says so", (code, says) => {
    const error = explainFileError(refusal(code), "/runs/x", "write the trace") as RunError;
    expect(error).toBeInstanceOf(RunError);
    expect(error.what).toMatch(says);
  });

  test("gives back what it does not know", () => {
    const other = refusal("EMFILE");
    expect(explainFileError(other, "x", "y")).toBe(other);
    expect(explainFileError("text", "x", "y")).toBe("text");
  });
});

describe("explained", () => {
  test("hands a result through and explains a refusal of the real file system", async () => {
    expect(await explained("x", "add", async () => 3)).toBe(3);
    // Nobody, not even root, may make a file below a device.
    const task = explained("/dev/null/x", "make a folder", () => mkdir("/dev/null/x"));
    await expect(task).rejects.toThrow("cannot make a folder: /dev/null/x is in the way of a folder");
  });
});

describe("errorCode", () => {
  test("reads the code of a Node error and of nothing else", () => {
    expect(errorCode(refusal("ENOENT"))).toBe("ENOENT");
    expect([new Error("x"), { code: "ENOENT" }, null].map(errorCode)).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
  });
});
