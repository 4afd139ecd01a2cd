/** A binary heap of numbers under an order of the caller's; `pop` gives the first of them. */
export class Heap {
  private readonly items: number[] = [];
  private readonly isBefore: (a: number, b: number) => boolean;

  constructor(isBefore: (a: number, b: number) => boolean) {
    this.isBefore = isBefore;
  }

  push(item: number): void {
    let at = this.items.push(item) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.isBefore(item, this.items[parent]!)) break;
      this.items[at] = this.items[parent]!;
      at = parent;
    }
    this.items[at] = item;
  }

  pop(): number | undefined {
    const first = this.items[0];
    const item = this.items.pop();
    if (item !== undefined && this.items.length > 0) this.sink(item);
    return first;
  }

  /** Lets an item fall from the top to its place. */
  private sink(item: number): void {
    const { items } = this;
    let at = 0;
    for (let child = 1; child < items.length; child = 2 * at + 1) {
      if (child + 1 < items.length && this.isBefore(items[child + 1]!, items[child]!)) child++;
      if (!this.isBefore(items[child]!, item)) break;
      items[at] = items[child]!;
      at = child;
    }
    items[at] = item;
  }
}
