/**
 * A TensorBoard event file with the scalars of a run, beside the log.
 *
 * A file is a row of TFRecords: length u64, its checksum, the bytes, their checksum, all little-endian. The bytes are
 * an `Event` message: wall_time = 1 (double), step = 2 (int64), file_version = 3 (string), summary = 5; a `Summary`
 * holds values = 1; a value has tag = 1 (string) and simple_value = 2 (float).
 *
 * Source: the protobuf wire format; tensorflow/core/util/event.proto and framework/summary.proto; TFRecord's
 * description in TensorFlow's guide. The file can be made from events.jsonl again at any time.
 */
import { mkdir, open } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import type { EventSink, RunEvent } from "../base/index.ts";
import { crc32c } from "./crc32c.ts";
import { Appender } from "./files/appender.ts";

import { explained } from "./files/fileErrors.ts";

export interface Scalar {
  readonly tag: string;
  readonly value: number;
}

/** What an event adds to the curves; empty for those that have no number to draw. */
export function scalarsOf(event: RunEvent): Scalar[] {
  if (event.type === "step.completed") {
    return finite({
      "loss/total": event.loss,
      "loss/main": event.mainLoss,
      ...Object.fromEntries(event.mtpLosses.map((loss, depth) => [`loss/mtp_${depth + 1}`, loss])),
      "loss/balance": event.balanceLoss,
      "loss/bits_per_byte": event.bitsPerByte,
      "optimizer/grad_norm": event.gradNorm,
      "schedule/learning_rate": event.learningRate,
      "schedule/gamma": event.gamma,
      "schedule/mtp_weight": event.mtpWeight,
      "schedule/batch_rows": event.batchRows,
      "speed/tokens_per_second": event.tokensPerSecond,
      "speed/share_of_peak": event.shareOfPeak,
      "experts/max_violation": event.maxViolation,
      "memory/live_bytes": event.liveBytes,
      "memory/rss_bytes": event.rssBytes,
    });
  }
  if (event.type === "evaluation.completed") {
    return finite({
      [`${event.split}/loss`]: event.loss,
      [`${event.split}/bits_per_byte`]: event.bitsPerByte,
      [`${event.split}/next_next_token_accuracy`]: event.nextNextTokenAccuracy,
    });
  }
  return [];
}

function finite(scalars: Readonly<Record<string, number | null>>): Scalar[] {
  return Object.entries(scalars).flatMap(([tag, value]) => (value === null ? [] : [{ tag, value }]));
}

/**
 * Opens a new event file in the folder; TensorBoard reads all that lie there as one run.
 *
 * @param folder  made if it does not exist: `tensorboard/` in the run folder
 */
export async function openTensorBoard(folder: string, now: Date = new Date()): Promise<TensorBoardFile> {
  const doing = "write a TensorBoard file";
  return explained(folder, doing, async () => {
    await mkdir(folder, { recursive: true });
    const seconds = Math.floor(now.getTime() / 1000);
    const path = join(folder, `events.out.tfevents.${seconds}.${hostname()}.${process.pid}.minke`);
    const file = new TensorBoardFile(new Appender(path, await open(path, "wx"), 0, doing));
    file.begin(now);
    return file;
  });
}

export class TensorBoardFile implements EventSink {
  readonly #file: Appender;

  constructor(file: Appender) {
    this.#file = file;
  }

  get path(): string {
    return this.#file.path;
  }

  /** The first record says which version of the format follows. */
  begin(now: Date): void {
    this.#file.append(record([double(1, now.getTime() / 1000), text(3, "brain.Event:2")]));
  }

  emit(event: RunEvent): void {
    const scalars = scalarsOf(event);
    if (scalars.length === 0 || !("step" in event)) return;
    const wallTime = Date.parse(event.time) / 1000;
    const values = scalars.map(({ tag, value }) => message(1, [text(1, tag), float(2, value)]));
    this.#file.append(record([double(1, wallTime), varintField(2, event.step), message(5, values)]));
  }

  async flush(): Promise<void> {
    await this.#file.flush();
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

/** One TFRecord. Checksums are turned and shifted, so that a checksum of data that holds checksums stays useful. */
function record(fields: readonly Buffer[]): Buffer {
  const data = Buffer.concat(fields);
  const framed = Buffer.alloc(12 + data.length + 4);
  framed.writeBigUInt64LE(BigInt(data.length), 0);
  framed.writeUInt32LE(maskedCrc(framed.subarray(0, 8)), 8);
  data.copy(framed, 12);
  framed.writeUInt32LE(maskedCrc(data), 12 + data.length);
  return framed;
}

function maskedCrc(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** Base 128, least significant group first; steps are far below 2^53. */
function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 128) {
    bytes.push((rest % 128) | 128);
    rest = Math.floor(rest / 128);
  }
  return Buffer.from([...bytes, rest]);
}

const wire = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const;

function key(field: number, type: keyof typeof wire): Buffer {
  return varint(field * 8 + wire[type]);
}

function varintField(field: number, value: number): Buffer {
  return Buffer.concat([key(field, "varint"), varint(value)]);
}

function double(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return Buffer.concat([key(field, "fixed64"), bytes]);
}

function float(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return Buffer.concat([key(field, "fixed32"), bytes]);
}

function text(field: number, value: string): Buffer {
  return message(field, [Buffer.from(value)]);
}

function message(field: number, parts: readonly Buffer[]): Buffer {
  const body = Buffer.concat(parts);
  return Buffer.concat([key(field, "bytes"), varint(body.length), body]);
}
