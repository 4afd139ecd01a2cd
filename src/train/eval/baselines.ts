/** What counting and compressing make of the held-out text: the bars that a model has to beat. */
import { spawn } from "node:child_process";
import type { Baseline } from "../../base/index.ts";
import type { Tokenizer } from "../../text/index.ts";
import type { Document } from "../data/documents.ts";
import { ByteModel } from "./byteModel.ts";
import { KneserNeyTrigram } from "./kneserNey.ts";

/** In bits per byte over the same held-out documents, ends of documents included where tokens are counted. */
export async function measureBaselines(
  train: readonly Document[],
  validation: readonly Document[],
  tokenizer: Tokenizer,
  signal?: AbortSignal,
): Promise<readonly Baseline[]> {
  const [trainBytes, heldBytes] = [train, validation].map((documents) =>
    documents.map(({ text }) => new TextEncoder().encode(text)),
  );
  const bytes = heldBytes!.reduce((sum, { length }) => sum + length, 0);
  const bits = (nats: number): number => nats / Math.LN2 / bytes;

  const trigram = new KneserNeyTrigram(tokenizer.vocabSize, tokenizer.eosId);
  await trigram.train(await encodeAll(train, tokenizer, signal), signal);
  const baselines: Baseline[] = [
    {
      name: "interpolated Kneser-Ney trigram over the same tokens",
      bitsPerByte: bits(await trigram.nats(await encodeAll(validation, tokenizer, signal), signal)),
    },
  ];
  const byteModel = new ByteModel();
  await byteModel.train(trainBytes!);
  baselines.push({ name: "order-2 byte model", bitsPerByte: bits(await byteModel.nats(heldBytes!)) });
  const [alone, together] = await Promise.all([
    xzBytes(trainBytes!, signal),
    xzBytes([...trainBytes!, ...heldBytes!], signal),
  ]);
  if (alone !== null && together !== null) {
    baselines.push({
      name: "xz -9e primed with the training text",
      bitsPerByte: ((together - alone) * 8) / bytes,
    });
  }
  return baselines;
}

async function encodeAll(
  documents: readonly Document[],
  tokenizer: Tokenizer,
  signal?: AbortSignal,
): Promise<Int32Array[]> {
  const encoded: Int32Array[] = [];
  for (const { text } of documents) {
    encoded.push(Int32Array.from([...(await tokenizer.encodeInSlices(text, {}, signal)), tokenizer.eosId]));
  }
  return encoded;
}

/** Size of what `xz -9e` makes of the parts; null where there is no xz. */
async function xzBytes(parts: readonly Uint8Array[], signal?: AbortSignal): Promise<number | null> {
  const child = spawn("xz", ["-9e", "--stdout", "--threads=1"], {
    stdio: ["pipe", "pipe", "ignore"],
    ...(signal === undefined ? {} : { signal }),
  });
  return new Promise((resolve, reject) => {
    let size = 0;
    child.on("error", (error: NodeJS.ErrnoException) =>
      error.code === "ENOENT" ? resolve(null) : reject(error),
    );
    // If xz ends early, the pipe breaks; its exit code tells the story.
    child.stdin.on("error", () => undefined);
    child.stdout.on("data", (chunk: Uint8Array) => {
      size += chunk.length;
    });
    child.on("close", (code) => resolve(code === 0 ? size : null));
    for (const part of parts) child.stdin.write(part);
    child.stdin.end();
  });
}
