import { expect, test } from "vitest";
import { onRanks } from "../../test/support/ranks.ts";
import { gathered, heldHere, type StateEntry, stateBytes } from "./runState.ts";

test("a state is counted whole, filled by what is here, and read with what another rank sends when asked", async () => {
  const [first] = await onRanks("reference", 2, async (communicator) => {
    const { rank, device } = communicator;
    const own = device.from(rank === 0 ? [1, 2] : [3, 4], [1, 2], "f32");
    const parts = [0, 1].map((owner) => ({
      ...{ owner, shape: [1, 2], start: 2 * owner },
      tensor: owner === rank ? own : null,
    }));
    const bias = device.from([5, 6, 7], [3], "bf16");
    const entries: readonly StateEntry[] = [
      { name: "experts", shape: [2, 2], dtype: "f32", parts },
      {
        name: "bias",
        shape: [3],
        dtype: "bf16",
        parts: [{ owner: null, shape: [3], start: 0, tensor: bias }],
      },
    ];
    expect(stateBytes(entries)).toBe(4 * 4 + 3 * 2);
    expect(heldHere(entries)).toEqual([
      { name: "experts", tensor: own, within: { shape: [2, 2], start: 2 * rank } },
      { name: "bias", tensor: bias, within: { shape: [3], start: 0 } },
    ]);
    if (rank === 1) {
      using request = device.temporary([1], "i32");
      communicator.exchange([], [{ from: 0, y: request }]).wait();
      communicator.exchange([{ to: 0, x: own }], []).wait();
      await device.drain();
      return null;
    }
    const [experts, whole] = gathered(entries, communicator);
    expect(await whole!.tensor.readBytes()).toEqual(await bias.readBytes());
    return new Float32Array((await experts!.tensor.readBytes()).slice().buffer);
  });
  expect(first).toEqual(Float32Array.of(1, 2, 3, 4));
});
