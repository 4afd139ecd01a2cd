/** Matrix products of the sizes that training has, interleaved with the register-peak probe. */
import type { OpenDevice } from "../api/index.ts";
import {
  type Dtype,
  groupedLinear,
  linear,
  Parameter,
  planDispatch,
  type QueueDevice,
  type Tensor,
} from "../tensor/index.ts";
import type { BenchFlags, BenchRow } from "./benchRow.ts";

const ROUNDS = 12;

interface Product {
  readonly name: string;
  readonly flops: number;
  run(): void;
}

export async function benchKernels(
  { device, native, threads }: OpenDevice,
  { precision }: BenchFlags,
): Promise<readonly BenchRow[]> {
  const products = [
    ...(
      [
        [2048, 1024, 512],
        [2048, 2048, 1024],
        [64, 512, 512],
        [256, 512, 512],
        [1, 4096, 256],
      ] as const
    ).map(([M, N, K]) => plain(device, precision, M, N, K)),
    grouped(device, precision, 2048, 16, 4, 256, 256),
  ];
  const best = new Map(products.map((product) => [product.name, Number.POSITIVE_INFINITY]));
  let peak = 0;
  for (let round = 0; round < ROUNDS; round++) {
    peak = Math.max(peak, await native!.peak(precision, 0.05));
    for (const product of products) {
      const repeats = Math.max(1, Math.round(2e9 / product.flops));
      await device.drain();
      const started = performance.now();
      for (let i = 0; i < repeats; i++) {
        using _scope = device.scope();
        product.run();
      }
      await device.drain();
      const seconds = (performance.now() - started) / 1000 / repeats;
      best.set(product.name, Math.min(best.get(product.name)!, seconds));
    }
  }
  return products.map(({ name, flops }) => {
    const rate = flops / best.get(name)!;
    return { name, threads, precision, gflops: rate / 1e9, peak: peak / 1e9, share: rate / peak };
  });
}

function weight(device: QueueDevice, path: string, shape: readonly number[], compute: Dtype): Parameter {
  const made = Parameter.make(device, path, shape, { compute, master: "f32", isTrained: false });
  made.master.write(pattern(made.size));
  made.repack();
  return made;
}

function filled(device: QueueDevice, shape: readonly number[], dtype: Dtype): Tensor {
  const tensor = device.temporary(shape, dtype);
  tensor.write(pattern(tensor.size));
  return tensor;
}

function plain(device: QueueDevice, dtype: Dtype, M: number, N: number, K: number): Product {
  const x = filled(device, [M, K], dtype);
  const w = weight(device, `bench.${N}x${K}`, [N, K], dtype);
  return { name: `${M} x ${N} x ${K}`, flops: 2 * M * N * K, run: () => void linear(x, w, dtype) };
}

function grouped(
  device: QueueDevice,
  dtype: Dtype,
  T: number,
  E: number,
  topK: number,
  N: number,
  K: number,
): Product {
  const x = filled(device, [T, K], dtype);
  const w = weight(device, "bench.experts", [E, N, K], dtype);
  const ids = device.temporary([T, topK], "i32");
  ids.write(
    Int32Array.from(
      { length: T * topK },
      (_, i) => Math.floor((i % topK) * (E / topK)) + (Math.floor(i / topK) % (E / topK)),
    ),
  );
  const plan = planDispatch(ids, E, E / 4);
  return {
    name: `${T} tokens to ${topK} of ${E} experts of ${N} x ${K}`,
    flops: 2 * T * topK * N * K,
    run: () => void groupedLinear(x, w, plan, true, dtype),
  };
}

function pattern(length: number): Float32Array {
  return Float32Array.from({ length }, (_, i) => ((i * 37) % 101) / 50 - 1);
}
