//! Speed of the pointwise kernels on one thread, beside `copy`, which is what memory allows.
//!
//!     cargo run --release -p minke-kernels --example pointwise_bench [rounds] [tokens] [isa]
//!
//! Bytes are counted once per operand (read or written); a change in place counts twice. Best of many rounds,
//! this thread's CPU time, operands in turn so that no kernel finds them warmer than another.

#[path = "clock/mod.rs"]
mod clock;

use clock::cpu_seconds;
use minke_kernels::args::{Args, Ledger, Memory};
use minke_kernels::isa::Isa;
use minke_kernels::ops::{self, Ctx, Kernel};
use minke_kernels::pool::Pool;

/// An operand by its dtype and length.
#[derive(Clone, Copy)]
enum Is {
    F32(usize),
    Bf16(usize),
    /// Positions or ids: small numbers.
    I32(usize),
    Absent,
}

use Is::{Absent, Bf16, F32, I32};

struct Bench {
    name: &'static str,
    note: &'static str,
    operands: Vec<Is>,
    numbers: Vec<f64>,
}

/// The shapes of preset nano: tokens of 256 channels, 4 heads of 32 + 16, latents of 64, experts of 128.
fn benches(t: usize) -> Vec<Bench> {
    let d = 256;
    let n = t * d;
    let (heads, stride, r, c) = (4, 48, 16, 64);
    let (rows, f, v) = (4 * t, 128, 4096);
    let table = 256 * r / 2;
    let chunks = t.div_ceil(64);
    let size = |values: &[usize]| values.iter().map(|v| *v as f64).collect::<Vec<f64>>();
    let with = |values: &[usize], last: f64| [size(values), vec![last]].concat();
    let bench = |name, note, operands: &[Is], numbers: Vec<f64>| Bench {
        name,
        note,
        operands: operands.to_vec(),
        numbers,
    };
    vec![
        bench("copy", "f32", &[F32(n), F32(n)], size(&[n])),
        bench("fill", "f32", &[F32(n)], with(&[n], 0.0)),
        bench("cast", "f32 to bf16", &[F32(n), Bf16(n)], size(&[n])),
        bench("cast", "bf16 to f32", &[Bf16(n), F32(n)], size(&[n])),
        bench("add", "f32 + f32", &[F32(n), F32(n), F32(n)], size(&[n])),
        bench("add", "f32 + bf16", &[F32(n), Bf16(n), F32(n)], size(&[n])),
        bench("axpy", "f32", &[F32(n), F32(n)], with(&[n], 0.5)),
        bench(
            "addRmsNorm",
            "f32 to bf16, nothing added",
            &[F32(n), Absent, F32(d), Absent, Bf16(n), F32(t)],
            with(&[t, d], 1e-6),
        ),
        bench(
            "addRmsNorm",
            "f32 + bf16 to f32, bf16",
            &[F32(n), Bf16(n), F32(d), F32(n), Bf16(n), F32(t)],
            with(&[t, d], 1e-6),
        ),
        bench(
            "addRmsNormBackward",
            "dy bf16, dsum f32",
            &[
                Bf16(n),
                F32(n),
                F32(n),
                F32(d),
                F32(t),
                F32(n),
                F32(d),
                F32(chunks * d),
            ],
            size(&[t, d]),
        ),
        bench(
            "swiglu",
            "bf16",
            &[Bf16(2 * rows * f), Bf16(rows * f), Absent],
            size(&[rows, f]),
        ),
        bench(
            "swiglu",
            "f32",
            &[F32(2 * rows * f), F32(rows * f), Absent],
            size(&[rows, f]),
        ),
        bench(
            "swigluBackward",
            "bf16",
            &[Bf16(rows * f), Bf16(2 * rows * f), Bf16(2 * rows * f), Absent],
            size(&[rows, f]),
        ),
        bench(
            "rope",
            "bf16, apart",
            &[
                Bf16(t * heads * stride),
                F32(table),
                F32(table),
                I32(t),
                Bf16(t * heads * stride),
            ],
            size(&[t, heads, stride, stride - r, r, 1]),
        ),
        bench(
            "latentKv",
            "bf16",
            &[
                Bf16(t * (c + r)),
                F32(c),
                F32(table),
                F32(table),
                I32(t),
                Bf16(t * c),
                Bf16(t * r),
                F32(t),
            ],
            with(&[t, c, r], 1e-6),
        ),
        bench(
            "latentKvBackward",
            "bf16",
            &[
                Bf16(t * c),
                Bf16(t * r),
                Bf16(t * (c + r)),
                F32(c),
                F32(t),
                F32(table),
                F32(table),
                I32(t),
                Bf16(t * (c + r)),
                F32(c),
                F32(chunks * c),
            ],
            size(&[t, c, r]),
        ),
        bench(
            "embedding",
            "f32, rounded",
            &[I32(t), F32(v * d), F32(n)],
            size(&[t, d, v, 1]),
        ),
        bench(
            "embeddingGrad",
            "f32",
            &[I32(t), F32(n), F32(v * d), I32(t + v + 1)],
            size(&[t, d, v]),
        ),
        bench(
            "mtpInput",
            "f32 to bf16",
            &[F32(n), F32(n), F32(d), F32(d), Bf16(2 * n), F32(2 * t)],
            with(&[t, d], 1e-6),
        ),
        bench(
            "randomNormal",
            "f32",
            &[F32(n)],
            [with(&[n], 0.02), vec![1.0, 2.0]].concat(),
        ),
    ]
}

#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line(#[allow(dead_code)] [u32; 16]);

struct Arena {
    lines: Vec<Line>,
    words: Vec<f64>,
    bytes: usize,
}

fn lay_out(bench: &Bench) -> Arena {
    let mut arena = Arena {
        lines: Vec::new(),
        words: Vec::new(),
        bytes: 0,
    };
    for operand in &bench.operands {
        let (len, size, code) = match operand {
            Absent => {
                arena.words.extend([-1.0, 0.0]);
                continue;
            }
            F32(len) => (*len, 4, 0.0),
            Bf16(len) => (*len, 2, 1.0),
            I32(len) => (*len, 4, 3.0),
        };
        arena.words.extend([(arena.lines.len() * 64) as f64, code]);
        // One word serves as an f32 near 1 and as two bf16; integers stay below the smallest table.
        let word = |i: usize| match operand {
            I32(_) => i as u32 * 37 % 256,
            _ => 0x3f80_3f80 + ((i as u32 * 7919 % 61) << 16) + i as u32 % 53,
        };
        let first = arena.lines.len() * 16;
        let lines = (len * size).div_ceil(64);
        arena
            .lines
            .extend((0..lines).map(|l| Line(std::array::from_fn(|k| word(first + 16 * l + k)))));
        arena.bytes += len * size;
    }
    arena.words.extend(&bench.numbers);
    arena
}

fn time(kernel: Kernel, ctx: &Ctx, arena: &mut Arena) -> f64 {
    let len = arena.lines.len() * 64;
    // SAFETY: lines are plain words.
    let bytes = unsafe { std::slice::from_raw_parts_mut(arena.lines.as_mut_ptr().cast(), len) };
    let memory = Memory::new(bytes);
    let ledger = Ledger::default();
    let start = cpu_seconds();
    kernel(ctx, &mut Args::new(&memory, &arena.words, &ledger)).unwrap();
    cpu_seconds() - start
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(60);
    let tokens: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(2048);
    let isa = arguments
        .next()
        .and_then(|name| Isa::from_name(&name))
        .unwrap_or(Isa::detect());
    let pool = Pool::new(1);
    let ctx = Ctx::new(&pool, isa);
    let table = ops::table();
    let mut runs: Vec<_> = benches(tokens)
        .into_iter()
        .map(|bench| {
            let (_, kernel) = *table
                .iter()
                .find(|(name, _)| *name == bench.name)
                .expect(bench.name);
            let arena = lay_out(&bench);
            (bench, kernel, arena, f64::INFINITY)
        })
        .collect();
    for _ in 0..rounds {
        for (_, kernel, arena, best) in &mut runs {
            *best = best.min(time(*kernel, &ctx, arena));
        }
    }
    println!("{isa}, {tokens} tokens, best of {rounds}");
    for (bench, _, arena, best) in &runs {
        let rate = arena.bytes as f64 / best * 1e-9;
        let note = bench.note;
        println!(
            "{:20} {note:28} {:8.1} us  {rate:6.1} GB/s",
            bench.name,
            best * 1e6
        );
    }
}
