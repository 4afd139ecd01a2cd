/**
 * A backend that computes nothing and only counts: shapes, bytes and FLOPs of a step, without numbers.
 *
 * With it the same model and step code answer "how much memory will this take" before a run.
 */
import { BYTES_PER_ELEMENT } from "../../dtype.ts";
import { type Param, paramValue } from "../../hostScalar.ts";
import type { Kernel } from "../../kernel.ts";
import type { Backend, Operand } from "../backend.ts";

export class PlanBackend implements Backend {
  readonly name = "plan";
  readonly description: string = "plan backend: counts, computes nothing";
  #flops = 0;
  #commands = 0;

  get flops(): number {
    return this.#flops;
  }

  get commands(): number {
    return this.#commands;
  }

  allocate(): void {}
  release(): void {}
  write(): void {}
  // Messages move no FLOPs and take no memory of their own.
  connect(): void {}

  enqueue(kernel: Kernel, _operands: readonly (Operand | null)[], params: readonly Param[]): void {
    this.#commands++;
    this.#flops += kernel.flops(
      Object.fromEntries(kernel.params.map((name, i) => [name, paramValue(params[i]!)])),
    );
  }

  record(build: () => void): null {
    build();
    return null;
  }

  read(source: Operand): Promise<Uint8Array> {
    return Promise.resolve(new Uint8Array(source.length * BYTES_PER_ELEMENT[source.dtype]));
  }

  drain(): Promise<void> {
    return Promise.resolve();
  }

  dispose(): Promise<void> {
    return Promise.resolve();
  }
}
