import { describe, expect, onTestFinished, test } from "vitest";
import { hashOf, makeTinyModel, snapshot } from "../../../test/support/tinyModel.ts";
import { tinyTrainConfig } from "../../../test/support/tinyTraining.ts";
import { type ExpertShare, precisions } from "../../model/index.ts";
import {
  type Communicator,
  everyRank,
  type Held,
  inProcess,
  type PipelineLayout,
  pipelineRanks,
  planSchedule,
} from "../../parallel/index.ts";
import { fill, PlanBackend, QueueDevice, ReferenceBackend, type Tensor } from "../../tensor/index.ts";
import { takeInventory } from "./inventory.ts";
import { type Module, makeModules } from "./modules.ts";

/** Two at least for each holder of a stage. */
const SHARDS = 16;

type Cut = PipelineLayout & { readonly ep: number };

const layouts: readonly Cut[] = [
  { dp: 1, ep: 1, pp: 4, schedule: "dualpipe" },
  { dp: 2, ep: 1, pp: 2, schedule: "dualpipe" },
  { dp: 4, ep: 2, pp: 2, schedule: "dualpipe" },
  { dp: 1, ep: 1, pp: 2, schedule: "dualpipev" },
  { dp: 2, ep: 1, pp: 2, schedule: "1f1b" },
  { dp: 4, ep: 4, pp: 2, schedule: "zb" },
];

/** Micro-batches of one row: 16 in all. MTP's embedding lies with the first stage under the DualPipes only. */
function settingsOf({ dp, pp, schedule }: PipelineLayout) {
  const plan = planSchedule(schedule, { ranks: pp, microBatches: 16 / dp });
  const { model } = tinyTrainConfig(
    {},
    { numHiddenLayers: 5, numNextnPredictLayers: plan.stagesOf[0]!.length === 1 ? 0 : 1 },
  );
  return { plan, model };
}

function shareAt(layout: Cut, rank: number): ExpertShare | null {
  const { ep } = layout;
  const count = settingsOf(layout).model.nRoutedExperts / ep;
  return ep === 1 ? null : { first: (rank % ep) * count, count, senders: ep };
}

function makeHere(world: Communicator, layout: Cut): readonly Module[] {
  const { plan, model } = settingsOf(layout);
  const pipeline = world.split(pipelineRanks(layout, world.rank % layout.dp));
  return makeModules({
    world,
    layout,
    zero1: true,
    plan,
    pipelineRank: pipeline.rank,
    config: model,
    precision: precisions.f32,
    gradientShards: SHARDS,
    share: shareAt(layout, world.rank),
  });
}

function onRanks<T>(layout: Cut, body: (modules: readonly Module[], world: Communicator) => Promise<T>) {
  const ranks = inProcess(layout.dp * layout.pp, { backend: "reference", limitBytes: 2 ** 26 });
  onTestFinished(async () => {
    for (const { device } of ranks) await device.dispose();
  });
  return everyRank(ranks, (world) => body(makeHere(world, layout), world));
}

function wholeModel(layout: PipelineLayout, device: QueueDevice) {
  return makeTinyModel(device, settingsOf(layout).model, { seed: null }).factory;
}

describe.each(layouts)("$schedule with dp=$dp, ep=$ep, pp=$pp", (layout) => {
  const { plan, model } = settingsOf(layout);
  const inventory = takeInventory(model, precisions.f32, layout, plan, shareAt(layout, 0));

  test("the inventory has every path of the whole model once, and no other", () => {
    const whole = wholeModel(layout, new QueueDevice(new PlanBackend(), Number.MAX_SAFE_INTEGER));
    const paths = [...whole.parameters, ...whole.buffers].map(({ path }) => path);
    expect([...inventory.keys()].sort()).toEqual(paths.sort());
  });

  /** What a rank has of a tensor. */
  function heldAt(rank: number, path: string): Held {
    const parts = inventory.get(path)!;
    return parts[parts.length === 1 ? 0 : rank % layout.ep]!;
  }

  test("it names as holders the ranks that make the weight or share, and as owner the one that sums it", async () => {
    const made = await onRanks(layout, async (modules, { rank }) =>
      modules.flatMap(({ factory, holders, dataParallel }) => [
        ...factory.parameters.map(({ path }, i) => {
          const owner = holders[dataParallel.ownerOf(i)]!;
          return { rank, path, holders, owner, owns: dataParallel.owns(i) };
        }),
        ...factory.buffers.map(({ path }) => {
          const owner = holders[0]!;
          return { rank, path, holders, owner, owns: rank === owner };
        }),
      ]),
    );
    const all = made.flat();
    for (const { rank, path, owner } of all) expect(heldAt(rank, path).owner, path).toBe(owner);
    for (const [path, parts] of inventory) {
      expect(parts, path).toHaveLength(path.includes(".experts.") ? layout.ep : 1);
      for (const held of parts) {
        const here = all.filter((one) => one.path === path && heldAt(one.rank, path) === held);
        const ranks = here.map(({ rank }) => rank);
        expect(ranks, path).toEqual([...held.holders].sort((a, b) => a - b));
        // In the order of the stage's blocks.
        for (const { holders } of here)
          expect(held.holders, path).toEqual(holders.filter((rank) => ranks.includes(rank)));
        const owning = here.filter(({ owns }) => owns).map(({ rank }) => rank);
        expect(owning, path).toEqual([held.owner]);
      }
    }
  });

  test("the owners of a stage or share differ by its largest weight at most", async () => {
    const whole = wholeModel(layout, new QueueDevice(new PlanBackend(), Number.MAX_SAFE_INTEGER));
    const groups = new Map<string, { bytes: Map<number, number>; largest: number }>();
    for (const { path, master } of whole.parameters) {
      const parts = inventory.get(path)!;
      for (const { holders, owner } of parts) {
        // Stages with the same ranks have them in another order, or one rank only.
        const key = `${holders.join()} ${parts.length}`;
        const group = groups.get(key) ?? { bytes: new Map(holders.map((rank) => [rank, 0])), largest: 0 };
        const bytes = master.storage.bytes / parts.length;
        group.bytes.set(owner, group.bytes.get(owner)! + bytes);
        groups.set(key, { ...group, largest: Math.max(group.largest, bytes) });
      }
    }
    for (const [key, { bytes, largest }] of groups) {
      const sums = [...bytes.values()];
      expect(Math.max(...sums) - Math.min(...sums), key).toBeLessThanOrEqual(sums.length === 1 ? 0 : largest);
      expect(Math.max(...sums), key).toBeGreaterThan(0);
    }
  });

  test("a rank's weights are those of its stages, and start as the whole model's do", async () => {
    const device = new QueueDevice(new ReferenceBackend(), 2 ** 26);
    onTestFinished(() => device.dispose());
    const whole = wholeModel(layout, device);
    whole.initialize(11);
    const parts = await onRanks(layout, async (modules, { rank }) => {
      const found = new Map<string, string>();
      for (const { factory } of modules) {
        factory.initialize(11);
        for (const [path, hash] of await snapshot(factory)) found.set(path, hash);
      }
      return { rank, found };
    });
    for (const { rank, found } of parts) {
      const held = new Map<string, string>();
      const note = async (path: string, tensor: Tensor): Promise<void> => {
        if (!heldAt(rank, path).holders.includes(rank)) return;
        const share = inventory.get(path)!.length === 1 ? null : shareAt(layout, rank);
        const part = share === null ? tensor : tensor.rows(share.first, share.first + share.count);
        held.set(path, await hashOf(part));
      };
      for (const { path, master } of whole.parameters) await note(path, master);
      for (const { path, value } of whole.buffers) await note(path, value);
      expect(found, `rank ${rank}`).toEqual(held);
    }
  });

  test("its two trees take every gradient of a stage, each in one of them", async () => {
    await onRanks(layout, async (modules) => {
      for (const { factory, trees } of modules) {
        const taken = async (tree: "input" | "weight"): Promise<string[]> => {
          const senders = factory.experts.flatMap(({ bySender }) => bySender.slice(1));
          const all = [...factory.parameters, ...senders];
          for (const { grad } of all) fill(grad!, 1);
          // The first of several blocks leaves zeros in the buffers that it has taken.
          trees[tree].endBlock(0);
          const isTaken = await Promise.all(
            all.map(async ({ grad }) => (await grad!.read()).every((value) => value === 0)),
          );
          return all.filter((_, i) => isTaken[i]).map(({ path }) => path);
        };
        const senders = factory.experts.flatMap(({ bySender }) => bySender.slice(1));
        const paths = [...factory.parameters, ...senders].map(({ path }) => path);
        const [input, weight] = [await taken("input"), await taken("weight")];
        expect([...input, ...weight].sort()).toEqual(paths.sort());
        expect(input.every((path) => /norm\.weight$|lmHead/i.test(path))).toBe(true);
      }
    });
  });
});

test("under dualpipe MTP reads the first stage's own embedding on the ranks that hold both ends", async () => {
  const layout: Cut = { dp: 1, ep: 1, pp: 4, schedule: "dualpipe" };
  const shares = await onRanks(layout, async (modules) => {
    for (const { factory } of modules) factory.initialize(11);
    const embedding = modules.find(({ index }) => index === 0)?.stage.embedTokens ?? null;
    const aliases = modules
      .flatMap(({ factory }) => factory.tied)
      .filter(({ owner }) => owner === embedding)
      .map(({ alias }) => alias);
    if (embedding === null) return aliases.length;
    fill(embedding.master, 0.5);
    const before = await hashOf(embedding.grad!);
    for (const alias of aliases) {
      expect(alias.master === embedding.master).toBe(true);
      expect(await hashOf(alias.master)).toBe(await hashOf(embedding.master));
      fill(alias.grad!, 7);
    }
    // Its gradient alone is apart.
    expect(await hashOf(embedding.grad!)).toBe(before);
    return aliases.length;
  });
  expect(shares).toEqual([1, 0, 0, 1]);
});
