import { expect, onTestFinished, test } from "vitest";
import { type Chunk, everyRank, inProcess, planDualPipe } from "../../parallel/index.ts";
import { fill, Parameter } from "../../tensor/index.ts";
import { SharedEmbedding } from "./sharedEmbedding.ts";

const SHAPE = [3, 4] as const;
const plan = planDualPipe({ ranks: 2, microBatches: 4 });

/** What MTP adds on a rank to a block: powers of two, so that a sum says which were added, and how often. */
const added = (rank: number, block: number): number => 2 ** (2 * block + rank);

function valuesOf(numbers: Iterable<number | bigint>): Set<number> {
  return new Set([...numbers].map(Number));
}

test("what MTP adds on either rank is added once on the other, block by block, and begins anew there", async () => {
  const ranks = inProcess(2, { backend: "reference", limitBytes: 2 ** 24, timeoutSeconds: 5 });
  onTestFinished(async () => {
    for (const { device } of ranks) await device.dispose();
  });
  const seen = await everyRank(ranks, async (communicator) => {
    const { device, rank } = communicator;
    const options = { compute: null, master: "f32", isTrained: true } as const;
    const own = Parameter.make(device, "model.embedTokens.weight", SHAPE, options);
    const alias = own.tied("mtp");
    fill(own.grad!, 0);
    const standing = device.arena.liveBytes;
    const shared = new SharedEmbedding(plan, communicator);
    const afterBlock: { sum: Set<number>; left: Set<number> }[] = [];
    for (const block of [0, 1, 2]) {
      fill(alias.grad!, added(rank, block));
      // Rank 0 has the first stage of direction 0 and the last of direction 1, rank 1 the other two.
      const [here, there] = rank === 0 ? ([0, 1] as const) : ([1, 0] as const);
      const chunk = (direction: 0 | 1): Chunk => ({ module: direction, direction, microBatch: block });
      shared.send(alias, chunk(there));
      const left = valuesOf(await alias.grad!.read());
      shared.receive(own, chunk(here));
      afterBlock.push({ sum: valuesOf(await own.grad!.read()), left });
    }
    shared.settle();
    expect(device.arena.liveBytes).toBe(standing);
    return afterBlock;
  });
  for (const rank of [0, 1]) {
    let sum = 0;
    for (const [block, found] of seen[rank]!.entries()) {
      sum += added(1 - rank, block);
      expect(found, `rank ${rank}, block ${block}`).toEqual({ sum: new Set([sum]), left: new Set([0]) });
    }
  }
});
