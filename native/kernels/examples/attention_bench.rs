//! Speed of the attention kernels on one thread, beside this machine's f32 multiply-add peak, measured in turn with them.
//!
//!     cargo run --release -p minke-kernels --example attention_bench [rounds] [shape]
//!
//! Work is counted exactly: each query meets itself and the keys before it. Best of many rounds, CPU time.

#[path = "clock/mod.rs"]
mod clock;

use clock::cpu_seconds;
use minke_kernels::args::{Args, Ledger, Memory};
use minke_kernels::isa::Isa;
use minke_kernels::ops::{self, Ctx, Kernel};
use minke_kernels::peak::{self, Kind};
use minke_kernels::pool::Pool;

struct Shape {
    name: &'static str,
    tokens: usize,
    sequences: usize,
    heads: usize,
    nope: usize,
    rope: usize,
    value: usize,
}

const SHAPES: [Shape; 6] = [
    Shape {
        name: "one",
        tokens: 256,
        sequences: 1,
        heads: 4,
        nope: 32,
        rope: 16,
        value: 32,
    },
    Shape {
        name: "nano",
        tokens: 256,
        sequences: 8,
        heads: 4,
        nope: 32,
        rope: 16,
        value: 32,
    },
    Shape {
        name: "nano-1k",
        tokens: 1024,
        sequences: 2,
        heads: 4,
        nope: 32,
        rope: 16,
        value: 32,
    },
    Shape {
        name: "nano-2k",
        tokens: 2048,
        sequences: 1,
        heads: 4,
        nope: 32,
        rope: 16,
        value: 32,
    },
    Shape {
        name: "mini",
        tokens: 512,
        sequences: 2,
        heads: 8,
        nope: 64,
        rope: 32,
        value: 64,
    },
    Shape {
        name: "V3-like",
        tokens: 512,
        sequences: 1,
        heads: 2,
        nope: 128,
        rope: 64,
        value: 128,
    },
];

#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

/// Operands laid out one after another.
struct Arena {
    lines: Vec<Line>,
    words: Vec<f64>,
}

impl Arena {
    fn new() -> Arena {
        Arena {
            lines: Vec::new(),
            words: Vec::new(),
        }
    }

    fn operand(&mut self, bytes: &[u8], code: f64) -> (f64, f64) {
        let address = self.lines.len() * 64;
        for chunk in bytes.chunks(64) {
            let mut line = Line([0; 64]);
            line.0[..chunk.len()].copy_from_slice(chunk);
            self.lines.push(line);
        }
        (address as f64, code)
    }

    fn floats(&mut self, count: usize, is_bf16: bool) -> (f64, f64) {
        let value = |i: usize| ((i * 7919 % 2003) as f32 / 1001.5 - 1.0) * 0.7;
        if is_bf16 {
            let bytes: Vec<u8> = (0..count)
                .flat_map(|i| ((value(i).to_bits() >> 16) as u16).to_le_bytes())
                .collect();
            self.operand(&bytes, 1.0)
        } else {
            let bytes: Vec<u8> = (0..count).flat_map(|i| value(i).to_le_bytes()).collect();
            self.operand(&bytes, 0.0)
        }
    }

    fn push(&mut self, operands: &[(f64, f64)], params: &[f64]) {
        self.words.clear();
        for &(address, code) in operands {
            self.words.extend([address, code]);
        }
        self.words.extend(params);
    }

    fn bytes(&mut self) -> &mut [u8] {
        let len = self.lines.len() * 64;
        // SAFETY: lines are plain bytes.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), len) }
    }
}

fn run(kernel: Kernel, ctx: &Ctx, arena: &mut Arena) -> f64 {
    let words = arena.words.clone();
    let memory = Memory::new(arena.bytes());
    let ledger = Ledger::default();
    let start = cpu_seconds();
    kernel(ctx, &mut Args::new(&memory, &words, &ledger)).unwrap();
    cpu_seconds() - start
}

fn peak(isa: Isa) -> f64 {
    let start = cpu_seconds();
    let work = peak::burst(isa, Kind::F32);
    work / (cpu_seconds() - start) / 1e9
}

/// One token behind a cache: heads, nope, rope, value, latent, past.
const STEPS: [(&str, [usize; 6]); 3] = [
    ("nano", [4, 32, 16, 32, 64, 255]),
    ("mini", [8, 64, 32, 64, 128, 511]),
    ("V3-like", [16, 128, 64, 128, 512, 4095]),
];

/// Decoding reads the cache and kvB once: also in bytes per second.
fn decode(
    kernel: Kernel,
    ctx: &Ctx,
    name: &str,
    [heads, nope, rope, value, latent, past]: [usize; 6],
    rounds: usize,
) {
    let mut arena = Arena::new();
    let q = arena.floats(heads * (nope + rope), true);
    let kv_b = arena.floats(heads * (nope + value) * latent, false);
    let cache_latent = arena.floats((past + 1) * latent, true);
    let cache_rope = arena.floats((past + 1) * rope, true);
    let o = arena.floats(heads * value, true);
    let counts = [1, heads, nope, rope, value, latent, past].map(|n| n as f64);
    let params: Vec<f64> = counts.into_iter().chain([0.1, 1.0]).collect();
    arena.push(&[q, kv_b, cache_latent, cache_rope, o], &params);
    let (mut best, mut best_peak) = (f64::INFINITY, 0.0f64);
    for _ in 0..rounds {
        best_peak = best_peak.max(peak(ctx.isa));
        best = best.min(run(kernel, ctx, &mut arena));
    }
    let flops = 2 * heads * ((nope + value) * latent + (past + 1) * (2 * latent + rope));
    let bytes = 4 * heads * (nope + value) * latent + 2 * (past + 1) * (latent + rope);
    println!(
        "{:10} absorbedAttention  {name:8} {:9.1} us {:7.1} GFLOP/s {:5.1} % of {best_peak:.1}, {:5.1} GB/s",
        ctx.isa,
        best * 1e6,
        flops as f64 / best / 1e9,
        flops as f64 / best / 1e7 / best_peak,
        bytes as f64 / best / 1e9,
    );
}

fn main() {
    let rounds: usize = std::env::args().nth(1).map_or(200, |n| n.parse().unwrap());
    let wanted = std::env::args().nth(2);
    let table = ops::table();
    let find = |name: &str| table.iter().find(|(n, _)| *n == name).map(|(_, kernel)| *kernel);
    let pool = Pool::new(1);
    for isa in [Isa::Amx, Isa::Avx512Bf16, Isa::Avx2]
        .into_iter()
        .filter(|isa| isa.available())
    {
        let ctx = Ctx::new(&pool, isa);
        for (name, sizes) in STEPS
            .into_iter()
            .filter(|(name, _)| wanted.as_deref().is_none_or(|w| w == *name))
        {
            let Some(kernel) = find("absorbedAttention") else {
                continue;
            };
            decode(kernel, &ctx, name, sizes, rounds);
        }
        for shape in SHAPES
            .iter()
            .filter(|shape| wanted.as_deref().is_none_or(|name| name == shape.name))
        {
            for is_bf16 in [true, false] {
                let Shape {
                    tokens,
                    sequences,
                    heads,
                    nope,
                    rope,
                    value,
                    ..
                } = *shape;
                let all = tokens * sequences;
                let mut arena = Arena::new();
                let q = arena.floats(all * heads * (nope + rope), is_bf16);
                let kv = arena.floats(all * heads * (nope + value), is_bf16);
                let k_rope = arena.floats(all * rope, is_bf16);
                let offsets: Vec<u8> = (0..=sequences)
                    .flat_map(|s| ((s * tokens) as i32).to_le_bytes())
                    .collect();
                let offsets = arena.operand(&offsets, 3.0);
                let o = arena.floats(all * heads * value, is_bf16);
                let lse = arena.floats(heads * all, false);
                let d_o = arena.floats(all * heads * value, is_bf16);
                let dq = arena.floats(all * heads * (nope + rope), is_bf16);
                let dkv = arena.floats(all * heads * (nope + value), is_bf16);
                let dk_rope = arena.floats(all * rope, is_bf16);
                let workspace = arena.floats(heads * all * (rope + 1), false);
                let scale = 1.0 / ((nope + rope) as f64).sqrt();
                let params = [all, heads, nope, rope, value, sequences].map(|n| n as f64);
                let params: Vec<f64> = params.into_iter().chain([scale]).collect();
                let pairs = (sequences * tokens * (tokens + 1) / 2 * heads) as f64;
                let (key, value) = ((nope + rope) as f64, value as f64);
                let commands = [
                    (
                        "attention",
                        vec![q, kv, k_rope, offsets, o, lse],
                        2.0 * pairs * (key + value),
                    ),
                    (
                        "attentionBackward",
                        vec![d_o, q, kv, k_rope, o, lse, offsets, dq, dkv, dk_rope, workspace],
                        2.0 * pairs * (3.0 * key + 2.0 * value),
                    ),
                ];
                for (name, operands, flops) in commands {
                    let Some(kernel) = find(name) else { continue };
                    arena.push(&operands, &params);
                    let (mut best, mut best_peak) = (f64::INFINITY, 0.0f64);
                    for _ in 0..rounds {
                        best_peak = best_peak.max(peak(isa));
                        best = best.min(run(kernel, &ctx, &mut arena));
                    }
                    let speed = flops / best / 1e9;
                    println!(
                        "{isa:10} {name:18} {:8} {:4} {:8.3} ms {speed:7.1} GFLOP/s {:5.1} % of {best_peak:.1}",
                        shape.name,
                        if is_bf16 { "bf16" } else { "f32" },
                        best * 1e3,
                        speed / best_peak * 100.0
                    );
                }
            }
        }
    }
}
