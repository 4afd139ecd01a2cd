// Times jax-js's matmul of 2048 x 2048 x 1024 in f32 in its WebAssembly backend; obeys "step N" and "quit".
//
//     ./setup_js.sh && node jax_js_gemm.mjs
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const folder = new URL(".js/node_modules/@jax-js/jax/", import.meta.url);
const { version } = JSON.parse(readFileSync(new URL("package.json", folder), "utf8"));
const { defaultDevice, init, numpy } = await import(new URL("dist/index.js", folder).href);
await init("wasm");
defaultDevice("wasm");

const [M, N, K] = [2048, 2048, 1024];
const x = numpy.array(pattern(M * K)).reshape([M, K]);
const w = numpy.array(pattern(K * N)).reshape([K, N]);

await step(2);
say({ ready: true, version, precision: "f32", node: process.version, setting: "backend wasm" });
for await (const line of createInterface({ input: process.stdin })) {
  const [word, count] = line.trim().split(/\s+/);
  if (word === "quit") break;
  if (word === "step" && Number(count) > 0)
    say({ seconds: await step(Number(count)), peakRssBytes: process.resourceUsage().maxRSS * 1024 });
  else say({ error: `cannot read ${JSON.stringify(line)}: say "step N" or "quit"` });
}
process.exit(0);

/** Seconds of `count` products. One is awaited before the next: jax-js is lazy and would merge what nobody reads. */
async function step(count) {
  const started = performance.now();
  for (let i = 0; i < count; i++) {
    const y = numpy.matmul(x.ref, w.ref);
    await y.blockUntilReady();
    y.dispose();
  }
  return (performance.now() - started) / 1000;
}

function pattern(length) {
  return Float32Array.from({ length }, (_, i) => ((i * 37) % 101) / 50 - 1);
}

function say(answer) {
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
