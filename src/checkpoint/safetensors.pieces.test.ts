import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { scratchFolder } from "../../test/support/scratchFolder.ts";
import { bytesOf, type DiskDtype, type TensorToWrite, writeSafetensors } from "./safetensors.ts";

function tensor(name: string, dtype: DiskDtype, shape: readonly number[]): TensorToWrite {
  const bytes = Uint8Array.from({ length: bytesOf({ dtype, shape }) }, (_, i) => (i * 31 + 7) % 256);
  return { name, dtype, shape, bytes: async () => bytes.slice() };
}

describe("writeSafetensors", () => {
  test("writes a tensor piece by piece as it would be written whole, asking for one piece at a time", async () => {
    const folder = await scratchFolder();
    const [whole, cut] = [tensor("a", "F32", [5]), tensor("b", "U8", [3])];
    let unwritten = 0;
    const pieces: TensorToWrite = {
      ...whole,
      async *bytes() {
        const bytes = (await whole.bytes()) as Uint8Array;
        for (let at = 0; at < bytes.length; at += 6) {
          expect(unwritten++).toBe(0);
          yield bytes.slice(at, at + 6);
          unwritten--;
        }
      },
    };
    await writeSafetensors(join(folder, "whole"), [whole, cut]);
    await writeSafetensors(join(folder, "pieces"), [pieces, cut]);
    expect(await readFile(join(folder, "pieces"))).toEqual(await readFile(join(folder, "whole")));
  });

  test("takes pieces that are too few or too many for a bug", async () => {
    for (const count of [1, 3]) {
      const wrong: TensorToWrite = {
        ...tensor("a", "F32", [4]),
        async *bytes() {
          for (let i = 0; i < count; i++) yield new Uint8Array(8);
        },
      };
      const path = join(await scratchFolder(), "x.safetensors");
      await expect(writeSafetensors(path, [wrong])).rejects.toThrow(/a gives the bytes that its shape needs/);
    }
  });
});
