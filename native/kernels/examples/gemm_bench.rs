//! Speed of the GEMM family on this machine, as a share of its register peak measured in the same rounds.
//!
//! ```text
//! cargo run --release -p minke-kernels --example gemm_bench -- [filter] [seconds per row]
//! ```
//!
//! One-thread figures use the thread's CPU time, so that other programs' time slices drop out; two-thread
//! figures are wall clock. All are the best of many rounds, probe and contender in turn.

use std::time::Instant;

use minke_kernels::args::Floats;
use minke_kernels::args::{Args, FloatsMut, Ledger, Memory};
use minke_kernels::gemm::{
    Arithmetic, Matrix, Panels, matmul, matmul_grad_weight, pack_panel, panel_len, panels,
};
use minke_kernels::isa::Isa;
use minke_kernels::ops::{Ctx, table};
use minke_kernels::peak::{Kind, burst};
use minke_kernels::pool::Pool;

const SHAPES: [(usize, usize, usize); 15] = [
    (96, 512, 512),
    (96, 1024, 1024),
    (2048, 1024, 512),
    (2048, 2048, 1024),
    (64, 512, 512),
    (128, 512, 512),
    (256, 512, 512),
    (2048, 704, 256),
    (2048, 256, 704),
    (128, 256, 256),
    (128, 256, 128),
    (1, 1024, 1024),
    (4, 1024, 1024),
    (1, 4096, 256),
    (512, 256, 4096),
];

/// Seconds that this thread has been running.
#[cfg(unix)]
fn cpu_seconds() -> f64 {
    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanoseconds: i64,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
    }
    const THREAD_CPU: i32 = if cfg!(target_os = "macos") { 16 } else { 3 };
    let mut time = Timespec {
        seconds: 0,
        nanoseconds: 0,
    };
    // SAFETY: fills one timespec.
    unsafe { clock_gettime(THREAD_CPU, &mut time) };
    time.seconds as f64 + time.nanoseconds as f64 * 1e-9
}

#[cfg(not(unix))]
fn cpu_seconds() -> f64 {
    wall_seconds()
}

fn wall_seconds() -> f64 {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// Where a row is measured, and for how long.
struct Course<'a> {
    ctx: Ctx<'a>,
    seconds: f64,
}

/// Best flop rate of `work` and of the peak probe, in turn.
fn race(course: &Course, flops: f64, kind: Kind, mut work: impl FnMut()) -> (f64, f64) {
    let (threads, isa) = (course.ctx.pool.threads(), course.ctx.isa);
    let clock = if threads == 1 { cpu_seconds } else { wall_seconds };
    let (mut best, mut ceiling) = (0.0f64, 0.0f64);
    let per_round = (5e6 / flops).ceil().max(1.0) as usize;
    let end = wall_seconds() + course.seconds;
    while wall_seconds() < end {
        let before = cpu_seconds();
        let done = burst(isa, kind);
        ceiling = ceiling.max(done / (cpu_seconds() - before));
        for _ in 0..4 {
            let before = clock();
            for _ in 0..per_round {
                work();
            }
            best = best.max(flops * per_round as f64 / (clock() - before));
        }
    }
    (best, ceiling * threads as f64)
}

fn report(name: &str, ctx: &Ctx, (best, ceiling): (f64, f64)) {
    let (isa, threads) = (ctx.isa, ctx.pool.threads());
    println!(
        "{name:<34} {isa:<10} {threads} thr {:>7.1} GFLOP/s {:>5.1} % of {:.1}",
        best / 1e9,
        100.0 * best / ceiling,
        ceiling / 1e9
    );
}

/// A copy that begins at a multiple of 64 bytes, as everything in an arena does: (buffer, first element).
fn aligned<T: Copy + Default>(values: &[T]) -> (Vec<T>, usize) {
    let spare = 64 / size_of::<T>();
    let mut buffer = vec![T::default(); values.len() + spare];
    let start = buffer.as_ptr().align_offset(64);
    buffer[start..start + values.len()].copy_from_slice(values);
    (buffer, start)
}

fn noise(len: usize) -> Vec<f32> {
    (0..len)
        .map(|i| ((i * 7919) % 2003) as f32 / 1001.5 - 1.0)
        .collect()
}

fn to_bf16(x: &[f32]) -> Vec<u16> {
    x.iter().map(|v| minke_kernels::bf16::from_f32(*v)).collect()
}

fn bench_matmul(course: &Course, shape: (usize, usize, usize), kind: Kind) {
    let (m, n, k) = shape;
    let ctx = &course.ctx;
    let (x, w) = (noise(m * k), noise(n * k));
    let count = n.div_ceil(32);
    let flops = 2.0 * (m * n * k) as f64;
    let name = format!("matmul {kind:?} {m}x{n}x{k}");
    match kind {
        Kind::Bf16 => {
            let (x, x_start) = aligned(&to_bf16(&x));
            let (mut packed, start) = aligned(&vec![0u16; count * panel_len(k)]);
            let packed = &mut packed[start..];
            for p in 0..count {
                let out = &mut packed[p * panel_len(k)..];
                pack_panel(ctx.isa, &w, panels::Strides::plain(k), n, k, p, out);
            }
            let (mut y, y_start) = aligned(&vec![0u16; m * n]);
            let result = race(course, flops, kind, || {
                let panels = Panels {
                    data: Floats::Bf16(packed),
                    n,
                    k,
                };
                matmul(
                    ctx,
                    Matrix::new(Floats::Bf16(&x[x_start..]), k),
                    m,
                    panels,
                    None,
                    FloatsMut::Bf16(&mut y[y_start..]),
                    n,
                );
            });
            report(&name, ctx, result);
        }
        Kind::F32 => {
            let (mut packed, start) = aligned(&vec![0f32; count * panel_len(k)]);
            let packed = &mut packed[start..];
            for p in 0..count {
                let out = &mut packed[p * panel_len(k)..];
                pack_panel(ctx.isa, &w, panels::Strides::plain(k), n, k, p, out);
            }
            let (x, x_start) = aligned(&x);
            let (mut y, y_start) = aligned(&vec![0f32; m * n]);
            let result = race(course, flops, kind, || {
                let panels = Panels {
                    data: Floats::F32(packed),
                    n,
                    k,
                };
                matmul(
                    ctx,
                    Matrix::new(Floats::F32(&x[x_start..]), k),
                    m,
                    panels,
                    None,
                    FloatsMut::F32(&mut y[y_start..]),
                    n,
                );
            });
            report(&name, ctx, result);
        }
    }
}

fn bench_grad(course: &Course, (t, n, k): (usize, usize, usize), kind: Kind) {
    let (dy, x) = (noise(t * n), noise(t * k));
    let (narrow_dy, dy_at) = aligned(&to_bf16(&dy));
    let (narrow_x, x_at) = aligned(&to_bf16(&x));
    let ((wide_dy, wide_dy_at), (wide_x, wide_x_at)) = (aligned(&dy), aligned(&x));
    let (mut dw, dw_start) = aligned(&vec![0f32; n * k]);
    let flops = 2.0 * (t * n * k) as f64;
    let ctx = &course.ctx;
    let (dy, x, arithmetic) = match kind {
        Kind::Bf16 => (
            Floats::Bf16(&narrow_dy[dy_at..]),
            Floats::Bf16(&narrow_x[x_at..]),
            Arithmetic::Bf16,
        ),
        Kind::F32 => (
            Floats::F32(&wide_dy[wide_dy_at..]),
            Floats::F32(&wide_x[wide_x_at..]),
            Arithmetic::F32,
        ),
    };
    let result = race(course, flops, kind, || {
        let (dy, x) = (Matrix::new(dy, n), Matrix::new(x, k));
        matmul_grad_weight(ctx, arithmetic, dy, x, (t, n, k), &mut dw[dw_start..]);
    });
    report(&format!("gradWeight {kind:?} {n}x{k} over {t}"), ctx, result);
}

/// groupedMatmul as the op table runs it: `tokens` with `top` experts each of `experts`.
fn bench_grouped(course: &Course, (tokens, top, experts): (usize, usize, usize), (n, k): (usize, usize)) {
    let r = tokens * top;
    let mut bytes = vec![0u64; (tokens * k * 2 + r * 4 + experts * n * k * 2 + r * n * 2) / 8 + 4096];
    let base = (bytes.as_mut_ptr() as usize).next_multiple_of(64) as *mut u8;
    let mut used = 0;
    let mut room = |len: usize| {
        let at = used;
        used = (at + len).next_multiple_of(64);
        at as f64
    };
    let (x, rows, offsets) = (room(tokens * k * 2), room(r * 4), room((experts + 1) * 4));
    let (w, y) = (room(experts * n.next_multiple_of(32) * k * 2), room(r * n * 2));
    for i in 0..r {
        // SAFETY: `rows` has room for r.
        unsafe {
            base.add(rows as usize)
                .cast::<i32>()
                .add(i)
                .write(((i * 13) % tokens) as i32)
        };
    }
    for e in 0..=experts {
        // SAFETY: `offsets` has room for experts + 1.
        unsafe {
            base.add(offsets as usize)
                .cast::<i32>()
                .add(e)
                .write((e * r / experts) as i32)
        };
    }
    let words = [
        x,
        1.0,
        rows,
        3.0,
        offsets,
        3.0,
        w,
        1.0,
        y,
        1.0,
        r as f64,
        n as f64,
        k as f64,
        experts as f64,
    ];
    let table = table();
    let (_, kernel) = table
        .iter()
        .find(|(name, _)| *name == "groupedMatmul")
        .expect("the op");
    // SAFETY: the bytes are ours.
    let memory = unsafe { Memory::from_raw(base, bytes.len() * 8 - 64) };
    let flops = 2.0 * (r * n * k) as f64;
    let ctx = &course.ctx;
    let result = race(course, flops, Kind::Bf16, || {
        let ledger = Ledger::default();
        kernel(ctx, &mut Args::new(&memory, &words, &ledger)).expect("a legal command");
    });
    report(
        &format!("grouped {experts} experts x {} x {n} x {k}", r / experts),
        ctx,
        result,
    );
}

/// Operands in memory that holds the same pattern of small numbers in every format.
struct Arena {
    bytes: Vec<u64>,
    used: usize,
}

impl Arena {
    /// Codes 0x24 to 0x3b, as bf16 and as halves of an f32 numbers of that size, too.
    fn new(bytes: usize) -> Arena {
        let byte = |i: usize| (0x24 + (i * 7919 % 2003) % 24) as u64;
        Arena {
            bytes: (0..bytes / 8 + 128)
                .map(|i| (0..8).fold(0, |word, b| word << 8 | byte(8 * i + b)))
                .collect(),
            used: 0,
        }
    }

    /// `len` numbers of a dtype: its code and bytes.
    fn place(&mut self, len: usize, (dtype, bytes): (f64, usize)) -> [f64; 2] {
        let at = self.used;
        self.used = (at + len * bytes).next_multiple_of(64);
        assert!(self.used + 64 <= self.bytes.len() * 8, "an arena of that size");
        [at as f64, dtype]
    }

    fn run(&self, ctx: &Ctx, name: &str, operands: &[[f64; 2]], numbers: &[usize]) {
        let numbers = numbers.iter().map(|number| *number as f64);
        let words: Vec<f64> = operands.iter().flatten().copied().chain(numbers).collect();
        let base = (self.bytes.as_ptr() as usize).next_multiple_of(64) as *mut u8;
        // SAFETY: the bytes are ours, and one op at a time has them.
        let memory = unsafe { Memory::from_raw(base, self.bytes.len() * 8 - 64) };
        let table = table();
        let (_, kernel) = table.iter().find(|(op, _)| *op == name).expect("the op");
        kernel(ctx, &mut Args::new(&memory, &words, &Ledger::default())).expect("a legal command");
    }
}

const F32: (f64, usize) = (0.0, 4);
const BF16: (f64, usize) = (1.0, 2);
const F8: (f64, usize) = (2.0, 1);
const ABSENT: [f64; 2] = [-1.0, 0.0];

/// FP8 beside bf16 of the same shape, in turns: the best rate of each, and the middle of the shares round by round, which other
/// programs disturb less.
fn duel(course: &Course, name: &str, flops: f64, mut bf16: impl FnMut(), mut fp8: impl FnMut()) {
    let (threads, isa) = (course.ctx.pool.threads(), course.ctx.isa);
    let clock = if threads == 1 { cpu_seconds } else { wall_seconds };
    let (mut best, mut shares, start) = ([f64::MAX; 2], Vec::new(), Instant::now());
    while start.elapsed().as_secs_f64() < course.seconds {
        let mut round = [0.0; 2];
        for (i, work) in [&mut bf16 as &mut dyn FnMut(), &mut fp8].into_iter().enumerate() {
            let before = clock();
            work();
            round[i] = clock() - before;
            best[i] = best[i].min(round[i]);
        }
        shares.push(100.0 * round[0] / round[1]);
    }
    shares.sort_by(f64::total_cmp);
    let [bf16, fp8] = best.map(|seconds| flops / seconds / 1e9);
    println!(
        "{name:<34} {isa:<10} {threads} thr fp8 {fp8:>7.1} GFLOP/s, bf16 {bf16:>7.1}: {:>5.1} %, middle {:>5.1} %",
        100.0 * fp8 / bf16,
        shares[shares.len() / 2]
    );
}

fn bench_fp8(course: &Course, (m, n, k): (usize, usize, usize)) {
    let (tiles, blocks, panels) = (k.div_ceil(128), n.div_ceil(128), n.div_ceil(32) * panel_len(k));
    let mut arena = Arena::new(4 * (m * k + panels + m * n + m * tiles + blocks * tiles) + 1024);
    let (x, x8, x_scales) = (
        arena.place(m * k, BF16),
        arena.place(m * k, F8),
        arena.place(m * tiles, F32),
    );
    let (w, w8, w_scales) = (
        arena.place(panels, BF16),
        arena.place(panels, F8),
        arena.place(blocks * tiles, F32),
    );
    let y = arena.place(m * n, BF16);
    let flops = 2.0 * (m * n * k) as f64;
    for promotion in [128, 16] {
        duel(
            course,
            &format!("fp8 {m}x{n}x{k}, every {promotion}"),
            flops,
            || arena.run(&course.ctx, "matmul", &[x, w, ABSENT, y], &[m, n, k]),
            || {
                let operands = [x8, x_scales, w8, w_scales, y];
                arena.run(&course.ctx, "fp8Matmul", &operands, &[m, n, k, 0, promotion, 0]);
            },
        );
    }
}

fn bench_fp8_grad(course: &Course, (t, n, k): (usize, usize, usize)) {
    let tiles = t.div_ceil(128);
    let mut arena = Arena::new(4 * (t * (n + k) + n * k + tiles * (n + k)) + 1024);
    let (dy, dy8, dy_scales) = (
        arena.place(t * n, BF16),
        arena.place(t * n, F8),
        arena.place(tiles * n, F32),
    );
    let (x, x8, x_scales) = (
        arena.place(t * k, BF16),
        arena.place(t * k, F8),
        arena.place(tiles * k, F32),
    );
    let dw = arena.place(n * k, F32);
    duel(
        course,
        &format!("fp8 grad {n}x{k}, {t} tokens"),
        2.0 * (t * n * k) as f64,
        || arena.run(&course.ctx, "matmulGradWeight", &[dy, x, dw], &[t, n, k, 1]),
        || {
            let operands = [dy8, dy_scales, x8, x_scales, dw];
            arena.run(&course.ctx, "fp8GradWeight", &operands, &[t, n, k, 128, 0]);
        },
    );
}

fn main() {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let seconds = std::env::args().nth(2).map_or(0.35, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("seconds per row: {text:?} is no number"))
    });
    let wanted = |name: &str| name.contains(&filter);
    for isa in Isa::usable().into_iter().filter(|isa| *isa != Isa::Portable) {
        for threads in [1, 2] {
            let pool = Pool::new(threads);
            let ctx = Ctx::new(&pool, isa);
            let course = Course { ctx, seconds };
            for shape in SHAPES {
                for kind in [Kind::Bf16, Kind::F32] {
                    if wanted(&format!("matmul {kind:?} {isa} {threads}")) {
                        bench_matmul(&course, shape, kind);
                    }
                }
            }
            if wanted(&format!("fp8 {isa} {threads}")) {
                for shape in SHAPES
                    .into_iter()
                    .chain([(4096, 4096, 1024)])
                    .filter(|(m, _, _)| *m >= 96)
                {
                    bench_fp8(&course, shape);
                }
                for shape in [
                    (2048, 512, 1024),
                    (2048, 1024, 2048),
                    (2048, 256, 704),
                    (256, 512, 512),
                ] {
                    bench_fp8_grad(&course, shape);
                }
            }
            for kind in [Kind::Bf16, Kind::F32] {
                if !wanted(&format!("grad {kind:?} {isa} {threads}")) {
                    continue;
                }
                for shape in [
                    (2048, 1024, 512),
                    (2048, 2048, 1024),
                    (128, 512, 512),
                    (2048, 256, 256),
                    (512, 256, 128),
                    (2048, 704, 256),
                ] {
                    bench_grad(&course, shape, kind);
                }
            }
            if wanted(&format!("grouped {isa} {threads}")) {
                bench_grouped(&course, (2048, 4, 16), (256, 256));
                bench_grouped(&course, (2048, 4, 32), (384, 512));
                bench_grouped(&course, (1024, 4, 16), (1024, 512));
            }
        }
    }
}
