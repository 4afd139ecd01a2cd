//! Contenders timed in turn: work beside the peak probe, FP8 beside bf16.

use minke_kernels::ops::Ctx;
use minke_kernels::peak::{Kind, burst};

use crate::clock::{cpu_seconds, wall_seconds};

/// Where a row is measured, and for how long.
pub struct Course<'a> {
    pub ctx: Ctx<'a>,
    pub seconds: f64,
}

impl Course<'_> {
    /// Of this thread alone where it does all the work.
    fn clock(&self) -> fn() -> f64 {
        if self.ctx.pool.threads() == 1 {
            cpu_seconds
        } else {
            wall_seconds
        }
    }
}

/// Best flop rate of `work` and of the peak probe, in turn.
pub fn race(course: &Course, flops: f64, kind: Kind, mut work: impl FnMut()) -> (f64, f64) {
    let (threads, isa) = (course.ctx.pool.threads(), course.ctx.isa);
    let clock = course.clock();
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

pub fn report(name: &str, ctx: &Ctx, (best, ceiling): (f64, f64)) {
    let (isa, threads) = (ctx.isa, ctx.pool.threads());
    println!(
        "{name:<34} {isa:<10} {threads} thr {:>7.1} GFLOP/s {:>5.1} % of {:.1}",
        best / 1e9,
        100.0 * best / ceiling,
        ceiling / 1e9
    );
}

/// FP8 beside bf16 of the same shape, in turns: the best rate of each, and the middle of the shares round by round, which other
/// programs disturb less.
pub fn duel(course: &Course, name: &str, flops: f64, mut bf16: impl FnMut(), mut fp8: impl FnMut()) {
    let (threads, isa) = (course.ctx.pool.threads(), course.ctx.isa);
    let clock = course.clock();
    let (mut best, mut shares) = ([f64::MAX; 2], Vec::new());
    let end = wall_seconds() + course.seconds;
    while wall_seconds() < end {
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
