import { describe, expect, test } from "vitest";
import { makeSession, tinyTrainConfig } from "../../test/support/tinyTraining.ts";
import { fill, type Tensor } from "../tensor/index.ts";
import { findNonFinite, worstOf } from "./findNonFinite.ts";

const { factory } = makeSession(tinyTrainConfig());
for (const { grad } of factory.parameters) fill(grad!, 0);

/** Looks while one number of a tensor is another. */
async function foundWith(tensor: Tensor, value: number, index = tensor.size - 1): Promise<string | null> {
  const before = await tensor.read();
  const spoilt = Float32Array.from(before);
  spoilt[index] = value;
  tensor.write(spoilt);
  const found = await findNonFinite([factory]);
  tensor.write(before);
  return found;
}

describe("findNonFinite", () => {
  test("finds nothing where all is finite, large numbers included", async () => {
    expect(await findNonFinite([factory])).toBeNull();
    expect(await foundWith(factory.parameters[0]!.master, 1e37)).toBeNull();
  });

  test.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])(
    "finds a single %d in any weight",
    async (value) => {
      for (const { path, master } of factory.parameters) {
        expect(await foundWith(master, value)).toBe(path);
        expect(await foundWith(master, value, 0)).toBe(path);
      }
    },
  );

  test("finds it in router biases and in gradients, and says which it is", async () => {
    for (const { path, value } of factory.buffers) expect(await foundWith(value, Number.NaN)).toBe(path);
    const { path, grad } = factory.parameters[3]!;
    expect(await foundWith(grad!, Number.POSITIVE_INFINITY)).toBe(`${path} (gradient)`);
  });

  test("names the weight, not the gradients that it spoils", async () => {
    const [first, last] = [factory.parameters[0]!, factory.parameters.at(-1)!];
    first.grad!.write(new Float32Array(first.size).fill(Number.NaN));
    expect(await foundWith(last.master, Number.NaN)).toBe(last.path);
    fill(first.grad!, 0);
  });

  test("holds no memory afterwards", async () => {
    const { arena } = factory.parameters[0]!.master.device as unknown as { arena: { liveCount: number } };
    const before = arena.liveCount;
    await findNonFinite([factory]);
    expect(arena.liveCount).toBe(before);
  });
});

test("of what ranks have found a weight counts before gradients, whichever rank has it", () => {
  expect(worstOf([null, null])).toBeNull();
  expect(worstOf(["a (gradient)", null, "b"])).toBe("b");
  expect(worstOf([null, "a (gradient)", "c (gradient)"])).toBe("a (gradient)");
});
