/**
 * A number that changes between replays of a recording: learning rate, step, position.
 *
 * Commands refer to it, and read its value when they are enqueued or replayed. Where a plain number is given
 * instead, a recording keeps that number for ever.
 */
export class HostScalar {
  value: number;

  constructor(value: number = 0) {
    this.value = value;
  }
}

/** What a kernel's params may be. */
export type Param = number | HostScalar;

export function paramValue(param: Param): number {
  return typeof param === "number" ? param : param.value;
}
