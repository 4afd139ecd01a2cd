//! Speed of the FP8 quantisers on one thread, in numbers a nanosecond, from cache and from memory.
//!
//!     cargo run --release -p minke-kernels --example quantize_bench [rounds] [isa] [note]
//!
//! Best of many short runs, all kernels in turn: another job's time slice does not last through all of them.

use std::time::Instant;

use minke_kernels::args::{Args, Ledger, Memory};
use minke_kernels::isa::Isa;
use minke_kernels::ops::{self, Ctx, Kernel};
use minke_kernels::pool::Pool;

/// An operand: code of its dtype, bytes.
type Operand = (f64, usize);

const F32: f64 = 0.0;
const BF16: f64 = 1.0;
const E4M3: f64 = 2.0;
const E5M6: f64 = 5.0;

struct Bench {
    kernel: &'static str,
    note: &'static str,
    operands: Vec<Option<Operand>>,
    numbers: Vec<f64>,
    size: usize,
}

/// Rows of 256 channels, and a weight as wide as many.
fn benches(rows: usize) -> Vec<Bench> {
    let (r, k) = (rows, 256);
    let n = r * k;
    let floats = |dtype: f64| Some((dtype, if dtype == F32 { 4 * n } else { 2 * n }));
    let tiles = Some((F32, 4 * r * k / 128));
    let columns = Some((F32, 4 * (r / 128 + 1) * k));
    let size = |rest: &[f64]| [&[r as f64, k as f64], rest].concat();
    let bench = |kernel, note, operands: &[Option<Operand>], numbers| Bench {
        kernel,
        note,
        operands: operands.to_vec(),
        numbers,
        size: n,
    };
    let mut all = vec![
        bench("copy", "f32", &[floats(F32), floats(F32)], vec![n as f64]),
        bench(
            "cast",
            "f32 to bf16",
            &[floats(F32), floats(BF16)],
            vec![n as f64],
        ),
    ];
    for (note, x, codes, bytes, power) in [
        ("f32 to e4m3", F32, E4M3, n, 0.0),
        ("bf16 to e4m3", BF16, E4M3, n, 0.0),
        ("bf16 to e4m3, powers", BF16, E4M3, n, 1.0),
        ("bf16 to e5m6, powers", BF16, E5M6, n / 2 * 3, 1.0),
    ] {
        let operands = [floats(x), None, Some((codes, bytes)), tiles, None];
        all.push(bench("quantizeTiles", note, &operands, size(&[power, 1e-4, 1.0])));
    }
    for (note, codes, bytes) in [("e4m3 to bf16", E4M3, n), ("e5m6 to bf16", E5M6, n / 2 * 3)] {
        let operands = [Some((codes, bytes)), tiles, floats(BF16), None];
        all.push(bench("dequantizeTiles", note, &operands, size(&[])));
    }
    for (note, x, scales) in [
        ("bf16", floats(BF16), None),
        ("e4m3, powers", Some((E4M3, n)), tiles),
        ("e5m6, powers", Some((E5M6, n / 2 * 3)), tiles),
    ] {
        let operands = [x, scales, None, None, None, Some((E4M3, n)), columns];
        let power = if scales.is_some() { 1.0 } else { 0.0 };
        all.push(bench(
            "quantizeColumns",
            note,
            &operands,
            size(&[1.0, power, 1e-4, 1.0]),
        ));
    }
    let blocks = Some((F32, 4 * r.div_ceil(128) * 2));
    let numbers = vec![1.0, r as f64, k as f64, 0.0];
    let both = [floats(F32), None, Some((E4M3, n)), Some((E4M3, n)), blocks];
    all.push(bench("quantizeWeight", "f32, both ways", &both, numbers));
    all.push(bench(
        "absMax",
        "bf16",
        &[floats(BF16), Some((F32, 4))],
        vec![n as f64],
    ));
    all
}

#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line(#[allow(dead_code)] [u32; 16]);

fn lay_out(bench: &Bench) -> (Vec<Line>, Vec<f64>) {
    let (mut lines, mut words) = (Vec::new(), Vec::new());
    for operand in &bench.operands {
        let Some((dtype, bytes)) = operand else {
            words.extend([-1.0, 0.0]);
            continue;
        };
        words.extend([(lines.len() * 64) as f64, *dtype]);
        // One word serves as an f32 near 1, as two bf16 and as four codes.
        let word = |i: usize| 0x3f80_3f80 + ((i as u32 * 7919 % 61) << 16) + i as u32 % 53;
        lines.extend((0..bytes.div_ceil(64)).map(|l| Line(std::array::from_fn(|i| word(16 * l + i)))));
    }
    words.extend(&bench.numbers);
    (lines, words)
}

fn seconds(kernel: Kernel, ctx: &Ctx, lines: &mut [Line], words: &[f64], repeats: usize) -> f64 {
    // SAFETY: lines are plain words.
    let bytes = unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * 64) };
    let memory = Memory::new(bytes);
    let ledger = Ledger::default();
    let start = Instant::now();
    for _ in 0..repeats {
        kernel(ctx, &mut Args::new(&memory, words, &ledger)).unwrap();
    }
    start.elapsed().as_secs_f64() / repeats as f64
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(200);
    let isa = arguments
        .next()
        .and_then(|name| Isa::from_name(&name))
        .unwrap_or(Isa::detect());
    let pool = Pool::new(1);
    let ctx = Ctx::new(&pool, isa);
    let table = ops::table();
    let only = std::env::args().nth(3);
    let kernel_of = |wanted: &str| table.iter().find(|(name, _)| *name == wanted).expect(wanted).1;
    for (rows, repeats) in [(128, 8), (1 << 16, 1)] {
        let rounds = if repeats == 1 { rounds.div_ceil(20) } else { rounds };
        let mut runs: Vec<_> = benches(rows)
            .into_iter()
            .filter(|bench| only.as_deref().is_none_or(|only| only == bench.note))
            .map(|bench| (lay_out(&bench), kernel_of(bench.kernel), bench, f64::INFINITY))
            .collect();
        for _ in 0..rounds {
            for ((lines, words), kernel, _, best) in &mut runs {
                *best = best.min(seconds(*kernel, &ctx, lines, words, repeats));
            }
        }
        println!("{isa}, [{rows}, 256], best of {rounds}");
        for (_, _, bench, best) in &runs {
            let rate = bench.size as f64 / best * 1e-9;
            println!("{:16} {:22} {rate:6.2} numbers/ns", bench.kernel, bench.note);
        }
    }
}
