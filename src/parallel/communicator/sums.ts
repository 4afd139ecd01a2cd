/**
 * Sums over ranks, by a fixed binary tree: the same bits however many ranks add them, and on every rank.
 *
 * Neighbours first: (0 + 1) + (2 + 3), then over pairs of pairs; what has no neighbour moves up. The left operand is
 * always the lower rank. It is the order of the gradients' tree over blocks in train/, one level after another.
 */
import { axpy, copyInto, type Tensor } from "../../tensor/index.ts";
import { requireAddable, requireRoot } from "./check.ts";
import { allGather } from "./collectives.ts";
import type { Communicator } from "./communicator.ts";

/**
 * Adds `x` over the ranks, in place, on all of them.
 *
 * Each rank adds one part of the elements and sends it to the others: a rank sends and receives about twice the size
 * of `x`, whatever the number of ranks.
 *
 * @param x  any shape, f32 (or f64), the same shape on all ranks
 */
export function treeSum(communicator: Communicator, x: Tensor, tag?: number): void {
  const { rank, size, device } = communicator;
  requireAddable(x);
  if (size === 1 || x.size === 0) return;
  using _scope = device.scope();
  const flat = x.reshape(-1);
  const part = (of: number): Tensor => flat.rows(cut(of, size, flat.size), cut(of + 1, size, flat.size));
  const others = Array.from({ length: size - 1 }, (_, i) => (rank + 1 + i) % size);
  const mine = part(rank);
  const parts = device.empty([size, mine.size], x.dtype);
  const row = (of: number): Tensor => parts.rows(of, of + 1).reshape(-1);
  const scattered = communicator.exchange(
    others.map((to) => ({ to, x: part(to) })),
    others.map((from) => ({ from, y: row(from) })),
    tag,
  );
  copyInto(mine, row(rank));
  scattered.wait();
  addByTree(Array.from({ length: size }, (_, of) => row(of)));
  const gathered = communicator.exchange(
    others.map((to) => ({ to, x: row(0) })),
    others.map((from) => ({ from, y: part(from) })),
    tag,
  );
  copyInto(row(0), mine);
  gathered.wait();
}

/**
 * Adds `x` over the ranks at one of them.
 *
 * @param x  any shape, f32 (or f64); on the root the sum afterwards, elsewhere unchanged
 */
export function treeSumTo(communicator: Communicator, x: Tensor, root: number, tag?: number): void {
  const { rank, size, device } = communicator;
  requireAddable(x);
  requireRoot("treeSumTo", root, size);
  if (size === 1) return;
  if (rank !== root) {
    communicator.exchange([{ to: root, x }], [], tag).wait();
    return;
  }
  using _scope = device.scope();
  const parts = Array.from({ length: size }, (_, of) => (of === root ? x : device.empty(x.shape, x.dtype)));
  const others = parts.flatMap((y, from) => (from === root ? [] : [{ from, y }]));
  communicator.exchange([], others, tag).wait();
  addByTree(parts);
  if (root !== 0) copyInto(parts[0]!, x);
}

/**
 * Adds `x` over the ranks one after another, rank 0 first, on all of them: for small tensors.
 *
 * @param x  any shape, f32 (or f64), the same shape on all ranks; the sum afterwards
 */
export function sumInOrder(communicator: Communicator, x: Tensor, tag?: number): void {
  requireAddable(x);
  if (communicator.size === 1 || x.size === 0) return;
  using _scope = communicator.device.scope();
  const all = allGather(communicator, x.reshape(-1), tag);
  const [first, ...rest] = Array.from({ length: communicator.size }, (_, of) =>
    all.rows(of, of + 1).reshape(-1),
  );
  for (const next of rest) axpy(next, first!, 1);
  copyInto(first!, x.reshape(-1));
}

/** Leaves the sum in the first; the others hold parts of it afterwards. */
export function addByTree(parts: readonly Tensor[]): void {
  // Views of nothing all lie at one address, which axpy refuses.
  if (parts[0]?.size === 0) return;
  for (let stride = 1; stride < parts.length; stride *= 2) {
    for (let left = 0; left + stride < parts.length; left += 2 * stride) {
      // y + 1 * x rounds once, as y + x does.
      axpy(parts[left + stride]!, parts[left]!, 1);
    }
  }
}

/** Where the part of a rank begins. */
function cut(rank: number, ranks: number, size: number): number {
  return Math.floor((rank * size) / ranks);
}
