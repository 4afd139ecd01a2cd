/** Random programs of two parts, interleaved and one after the other: the same numbers, on one queue and between two. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { nativeIsMissing } from "../../test/support/native.ts";
import { type Communicator, everyRank, inProcess } from "../parallel/index.ts";
import type { QueueDevice } from "./device.ts";
import { add, axpy, copyInto, scale } from "./ops/elementwise.ts";
import type { Tensor } from "./tensor.ts";

const N = 8;
const TENSORS = 6;

/** What a program does next, with tensors by their numbers. */
type Step =
  | { readonly kind: "axpy" | "copy" | "sum"; readonly from: number; readonly to: number }
  | { readonly kind: "scale"; readonly to: number }
  /** Sends one tensor to the other rank and receives into another; computes on a third meanwhile. */
  | { readonly kind: "exchange"; readonly from: number; readonly to: number; readonly meanwhile: number };

const index = fc.nat(TENSORS - 1);
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    kind: fc.constantFrom("axpy" as const, "copy" as const, "sum" as const),
    from: index,
    to: index,
  }),
  fc.record({ kind: fc.constant("scale" as const), to: index }),
  fc.record({ kind: fc.constant("exchange" as const), from: index, to: index, meanwhile: index }),
);
const program = fc.array(step, { maxLength: 12 });

function run(
  steps: readonly Step[],
  tensors: readonly Tensor[],
  communicator: Communicator,
  tag: number,
): void {
  const { device, rank } = communicator;
  for (const one of steps) {
    const to = tensors[one.to]!;
    switch (one.kind) {
      case "scale":
        scale(to, 0.5);
        break;
      case "axpy":
        if (one.from !== one.to) axpy(tensors[one.from]!, to, 0.25);
        break;
      case "copy":
        if (one.from !== one.to) copyInto(tensors[one.from]!, to);
        break;
      case "sum": {
        // A temporary whose memory is free again at once.
        using _scope = device.scope();
        const sum = add(tensors[one.from]!, to);
        copyInto(sum, to);
        break;
      }
      case "exchange": {
        using came = device.temporary([N], "f32");
        // What is sent must stay as it is until the await.
        using sent = device.temporary([N], "f32");
        copyInto(tensors[one.from]!, sent);
        const other = 1 - rank;
        const pending = communicator.exchange([{ to: other, x: sent }], [{ from: other, y: came }], tag);
        scale(tensors[one.meanwhile]!, 2);
        pending.wait();
        axpy(came, to, 1);
      }
    }
  }
}

type Order = (device: QueueDevice, first: () => void, second: () => void) => void;

const orders: Readonly<Record<"interleaved" | "one by one", Order>> = {
  interleaved: (device, first, second) => device.interleave(first, second),
  "one by one": (_, first, second) => {
    first();
    second();
  },
};

/** The numbers of all tensors of both ranks at the end. */
async function results(
  communicators: readonly Communicator[],
  order: Order,
  first: readonly Step[],
  second: readonly Step[],
  tags: readonly [first: number, second: number],
): Promise<readonly (readonly number[])[][]> {
  return everyRank(communicators, async (communicator) => {
    const { device, rank } = communicator;
    using _scope = device.scope();
    const tensors = Array.from({ length: TENSORS }, (_, i) =>
      device.from(
        Float32Array.from({ length: N }, (_, j) => 1 + rank + 3 * i + j / N),
        [N],
        "f32",
      ),
    );
    const live = device.arena.liveBytes;
    order(
      device,
      () => run(first, tensors, communicator, tags[0]),
      () => run(second, tensors, communicator, tags[1]),
    );
    expect(device.arena.liveBytes).toBe(live);
    return Promise.all(tensors.map(async (tensor) => Array.from(await tensor.read())));
  });
}

describe.each([
  ["reference", false],
  ["native", nativeIsMissing],
] as const)("two interleaved programs on %s ranks", (backend, isMissing) => {
  test.skipIf(isMissing)("leave what they leave one by one, whatever they share", async () => {
    const communicators = inProcess(2, {
      ...{ backend, limitBytes: 2 ** 22, threads: 1, timeoutSeconds: 20 },
    });
    await fc.assert(
      fc.asyncProperty(program, program, fc.nat(1), async (first, second, tag) => {
        const found = await results(communicators, orders.interleaved, first, second, [0, tag]);
        const plain = await results(communicators, orders["one by one"], first, second, [0, tag]);
        expect(found).toEqual(plain);
      }),
      { numRuns: backend === "native" ? 300 : 50 },
    );
    for (const { device } of communicators) await device.dispose();
  });
});
