// Ops on tensors: enqueued at once, run in order on the backend, and awaited only where numbers are read.
// Run it in a clone: node examples/01-tensor.ts
import { fill, linear, Parameter, QueueDevice, ReferenceBackend, swiglu, Tape } from "minke/tensor";

// The reference backend is plain TypeScript; NativeBackend takes the same ops.
const device = new QueueDevice(new ReferenceBackend(), 2 ** 24);

// A weight is [out, in], as checkpoints store it; linear gives y = x @ w^T.
const w = Parameter.make(device, "example.weight", [4, 3], {
  compute: "f32",
  master: "f32",
  isTrained: true,
});
w.master.write(Float32Array.from({ length: 12 }, (_, i) => i / 10));
w.repack(); // kernels read a packed copy of the master
fill(w.grad!, 0);

const x = device.from([1, 2, 3, 4, 5, 6], [2, 3], "f32");

// What a scope makes is freed with it, in the queue's order: nothing waits for the garbage collector.
using _scope = device.scope();
using tape = new Tape(device);
const y = device.withTape(tape, () => swiglu(linear(x, w, "f32"))); // [2, 2]: silu(first half) * second half
console.log("y     ", await y.read());

const one = device.empty(y.shape, y.dtype);
fill(one, 1);
tape.seed(y, one); // dL/dy = 1
tape.backward();
console.log("dL/dw ", await w.grad!.read());
