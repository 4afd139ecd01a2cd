//! Speed of the GEMM family on this machine, as a share of its register peak measured in the same rounds.
//!
//! ```text
//! cargo run --release -p minke-kernels --example gemm_bench -- [filter] [seconds per row]
//! ```
//!
//! One-thread figures use the thread's CPU time, so that other programs' time slices drop out; two-thread
//! figures are wall clock. All are the best of many rounds, probe and contender in turn.
//!
//! Reading order: `race` (how speed is measured), `operands` (what is multiplied), then the rows: `products` and `fp8`.

#[path = "../clock/mod.rs"]
mod clock;
mod fp8;
mod operands;
mod products;
mod race;

use minke_kernels::isa::Isa;
use minke_kernels::ops::Ctx;
use minke_kernels::peak::Kind;
use minke_kernels::pool::Pool;

use fp8::{bench_fp8, bench_fp8_grad};
use products::{bench_grad, bench_grouped, bench_matmul};
use race::Course;

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
