/** Matrix products of the sizes that training has, interleaved with the register-peak probe. */
import type { OpenDevice } from "../../api/index.ts";
import { openFp8Product, openGrouped, openProduct } from "./product.ts";
import { type BenchFlags, type BenchRow, timing } from "./row.ts";

const SIZES = [
  [2048, 1024, 512],
  [2048, 2048, 1024],
  [64, 512, 512],
  [256, 512, 512],
  [1, 4096, 256],
] as const;

const FP8_SIZES = [
  [2048, 1024, 512],
  [2048, 2048, 1024],
  [256, 512, 512],
] as const;

export async function* benchKernels(
  { device, native, threads }: OpenDevice,
  { precision, rounds }: BenchFlags,
): AsyncGenerator<BenchRow> {
  const products = [
    ...SIZES.map(([M, N, K]) => openProduct(device, precision, M, N, K)),
    // In turns with the rows above, so that the two are comparable.
    ...FP8_SIZES.map(([M, N, K]) => openFp8Product(device, M, N, K)),
    openGrouped(device, precision, { T: 2048, E: 16, topK: 4, N: 256, K: 256 }),
  ];
  const seconds = products.map((): number[] => []);
  let peak = 0;
  for (let round = 0; round < rounds; round++) {
    peak = Math.max(peak, await native!.peak(precision, 0.05));
    for (const [i, product] of products.entries()) {
      const repeats = Math.max(1, Math.round(2e9 / product.flops));
      await device.drain();
      const started = performance.now();
      for (let n = 0; n < repeats; n++) product.run();
      await device.drain();
      seconds[i]!.push((performance.now() - started) / 1000 / repeats);
    }
  }
  for (const [i, { name, flops }] of products.entries()) {
    const { best, median } = timing(seconds[i]!);
    yield {
      bench: "kernels",
      name,
      threads,
      precision,
      gflops: flops / best / 1e9,
      medianGflops: flops / median / 1e9,
      peakGflops: peak / 1e9,
      share: flops / best / peak,
    };
  }
}
