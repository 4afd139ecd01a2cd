import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { syntheticRun } from "../../test/support/syntheticRun.ts";
import { decodeTensorBoard as decode } from "../../test/support/tensorBoardFile.ts";
import { type RunEvent, stampEvent } from "../base/index.ts";
import { openTensorBoard, scalarsOf } from "./tensorboard.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "minke-tensorboard-"));
});
afterEach(() => rm(folder, { recursive: true }));

const golden = new URL("../../test/golden/tensorboard/case.tfevents", import.meta.url);

async function written(events: Iterable<RunEvent>, start: Date): Promise<Buffer> {
  const file = await openTensorBoard(folder, start);
  for (const event of events) file.emit(event);
  await file.close();
  return readFile(file.path);
}

const evaluation = (
  step: number,
  seconds: number,
  split: "validation" | "train",
  loss: number,
  bitsPerByte: number,
  nextNextTokenAccuracy: number | null,
): RunEvent => {
  const figures = { loss, bitsPerByte, nextNextTokenAccuracy, tokens: 1, seconds: 1 };
  return stampEvent({ type: "evaluation.completed", step, split, ...figures }, new Date(seconds * 1000));
};

describe("a TensorBoard file", () => {
  test("is, byte for byte, what TensorBoard's own writer makes of the same scalars", async () => {
    const events = [
      evaluation(1, 1000.25, "validation", 5.5, 1.9375, null),
      evaluation(300, 1001.5, "validation", Math.PI, 1.1, null),
      evaluation(1_000_000_007, 1002, "train", 1e-30, 0, 0.25),
    ];
    expect(await written(events, new Date(999_000))).toEqual(await readFile(golden));
  });

  test("the decoder of this test reads TensorBoard's own file", async () => {
    expect(decode(await readFile(golden))).toEqual([
      { wallTime: 999, step: 0, version: "brain.Event:2", scalars: {} },
      { wallTime: 1000.25, step: 1, scalars: { "validation/loss": 5.5, "validation/bits_per_byte": 1.9375 } },
      {
        wallTime: 1001.5,
        step: 300,
        scalars: { "validation/loss": Math.fround(Math.PI), "validation/bits_per_byte": Math.fround(1.1) },
      },
      {
        wallTime: 1002,
        step: 1_000_000_007,
        scalars: {
          "train/loss": Math.fround(1e-30),
          "train/bits_per_byte": 0,
          "train/next_next_token_accuracy": 0.25,
        },
      },
    ]);
  });

  test("holds every scalar of a whole run, in order, under intact checksums", async () => {
    const events = [...syntheticRun({ steps: 300 })];
    const [first, ...records] = decode(await written(events, new Date(0)));
    expect(first!.version).toBe("brain.Event:2");
    const expected = events
      .filter((event) => event.type === "step.completed" || event.type === "evaluation.completed")
      .map((event) => ({
        wallTime: Date.parse(event.time) / 1000,
        step: event.step,
        scalars: Object.fromEntries(scalarsOf(event).map(({ tag, value }) => [tag, Math.fround(value)])),
      }));
    expect(records).toEqual(expected);
  });

  test("is named as TensorBoard looks for it, and two of one run lie side by side", async () => {
    await written([], new Date(1000));
    await written([], new Date(2000));
    const names = (await readdir(folder)).sort();
    expect(names).toHaveLength(2);
    expect(names[0]).toMatch(/^events\.out\.tfevents\.1\..+\.minke$/);
  });
});

describe("scalarsOf", () => {
  test("leaves out what was not measured, and events without numbers", () => {
    const lost = { ...evaluation(1, 1, "validation", 1, 1, null), loss: null, bitsPerByte: null };
    expect(scalarsOf(lost as RunEvent)).toEqual([]);
    expect(scalarsOf(stampEvent({ type: "run.phase", name: "data", seconds: 1 }))).toEqual([]);
  });

  test("numbers the MTP losses by depth", () => {
    const step = [...syntheticRun({ steps: 1 })].find((event) => event.type === "step.completed")!;
    const tags = scalarsOf({ ...step, mtpLosses: [1, 2] }).map(({ tag }) => tag);
    expect(tags).toEqual(expect.arrayContaining(["loss/main", "loss/mtp_1", "loss/mtp_2"]));
  });
});
