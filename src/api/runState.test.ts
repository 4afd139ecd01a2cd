import { expect, test } from "vitest";
import { onRanks } from "../../test/support/ranks.ts";
import { firstAlone, followFirst } from "../parallel/index.ts";
import { gathered, heldHere, type StateEntry, stateBytes, type Wanted } from "./runState.ts";

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
      const asked: Wanted[] = [];
      await followFirst<boolean, Wanted>(communicator, (wanted) => {
        asked.push(wanted);
        communicator.exchange([{ to: 0, x: own }], []).wait();
      });
      expect(asked).toEqual([{ owner: 1, file: "state", name: "experts", start: 2 }]);
      return null;
    }
    let numbers: Float32Array | null = null;
    await firstAlone<boolean, Wanted>(communicator, async (ask) => {
      const [experts, whole] = gathered(entries, { communicator, ask });
      expect(await whole!.tensor.readBytes()).toEqual(await bias.readBytes());
      numbers = new Float32Array((await experts!.tensor.readBytes()).slice().buffer);
      return true;
    });
    return numbers;
  });
  expect(first).toEqual(Float32Array.of(1, 2, 3, 4));
});
