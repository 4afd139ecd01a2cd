/** A device on which the n-th command from now cannot be enqueued, as if memory had run out just there. */
import { OutOfMemoryError } from "../../src/base/index.ts";
import { QueueDevice } from "../../src/tensor/index.ts";

export class FailingDevice extends QueueDevice {
  /** Commands that still get through; the one after them throws, once. */
  left: number = Number.POSITIVE_INFINITY;
  /** Commands enqueued op by op. */
  enqueued = 0;

  override run(...command: Parameters<QueueDevice["run"]>): void {
    if (this.left-- === 0) {
      throw new OutOfMemoryError("no room, says the test", { why: "it was asked to", fix: "none" });
    }
    this.enqueued++;
    super.run(...command);
  }
}
