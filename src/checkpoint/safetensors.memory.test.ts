import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { scratchFolder } from "../../test/support/scratchFolder.ts";
import { type TensorToWrite, writeSafetensors } from "./safetensors.ts";

test("the writer frees a tensor's bytes once they are written, but not a part of something larger", async () => {
  const path = join(await scratchFolder(), "x.safetensors");
  const [own, shared] = [Uint8Array.of(1, 2, 3, 4), Uint8Array.of(9, 5, 6, 7, 8, 9)];
  const given = (name: string, bytes: Uint8Array): TensorToWrite => ({
    name,
    dtype: "U8",
    shape: [4],
    bytes: async () => bytes,
  });
  await writeSafetensors(path, [given("a", own), given("b", shared.subarray(1, 5))]);
  expect([...(await readFile(path)).subarray(-8)]).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  expect([own.byteLength, shared.byteLength]).toEqual([0, 6]);
});
