//! linearCrossEntropy and the sums against straight loops in doubles, on every path.

use super::linear_cross_entropy::{CHUNK, by_chunk_only, linear_cross_entropy};
use crate::bf16;
use crate::isa::Isa;
use crate::ops::Kernel;
use crate::optim::test_arena::{At, TestArena, noise};
use crate::pool::Pool;

#[derive(Clone)]
struct Case {
    d: usize,
    v: usize,
    targets: Vec<i32>,
    is_bf16: bool,
    gradients: bool,
}

struct Run {
    arena: TestArena,
    x: At,
    loss: At,
    hits: At,
    dx: At,
    dw: At,
}

const SCALE: f64 = 0.125;

fn panels(w: &[f32], n: usize, k: usize, is_bf16: bool, transpose: bool) -> Vec<f32> {
    let mut pack = TestArena::new();
    pack.f32s(w);
    let at = pack.floats(&vec![0.0; n.div_ceil(32) * 32 * k.next_multiple_of(2)], is_bf16);
    let len_t = k.div_ceil(32) * 32 * n.next_multiple_of(2);
    let at_t = pack.floats(&vec![0.0; len_t], is_bf16);
    pack.numbers(&[1.0, n as f64, k as f64]);
    pack.run("packWeight", 1, Isa::detect()).unwrap();
    match transpose {
        false => pack.read(at, n.div_ceil(32) * 32 * k.next_multiple_of(2), is_bf16),
        true => pack.read(at_t, len_t, is_bf16),
    }
}

/// Values that bf16 holds exactly, so that only the arithmetic rounds.
fn inputs(case: &Case) -> (Vec<f32>, Vec<f32>) {
    let exact = |x: Vec<f32>| x.into_iter().map(bf16::round).collect::<Vec<f32>>();
    (
        exact(noise(case.targets.len() * case.d, 1)),
        exact(noise(case.v * case.d, 2)),
    )
}

fn place(case: &Case, x: &[f32]) -> Run {
    let (t, d, v) = (case.targets.len(), case.d, case.v);
    let (_, w) = inputs(case);
    let mut arena = TestArena::new();
    let x = arena.floats(x, case.is_bf16);
    arena.floats(&panels(&w, v, d, case.is_bf16, false), case.is_bf16);
    match case.gradients {
        true => drop(arena.floats(&panels(&w, v, d, case.is_bf16, true), case.is_bf16)),
        false => arena.absent(),
    }
    arena.i32s(&case.targets);
    let loss = arena.f32s(&vec![77.0; t]);
    let hits = arena.i32s(&vec![77; t]);
    let (dx, dw) = match case.gradients {
        true => (arena.f32s(&vec![77.0; t * d]), arena.f32s(&vec![1.0; v * d])),
        false => {
            arena.absent();
            arena.absent();
            (x, x)
        }
    };
    let width = v.next_multiple_of(32) + d.next_multiple_of(32);
    arena.f32s(&vec![f32::NAN; t.min(CHUNK) * width]);
    arena.numbers(&[t as f64, d as f64, v as f64, SCALE]);
    Run {
        arena,
        x,
        loss,
        hits,
        dx,
        dw,
    }
}

struct Exact {
    loss: Vec<f64>,
    hits: Vec<i32>,
    dx: Vec<f64>,
    dw: Vec<f64>,
}

/// Straight loops in doubles.
fn exact(case: &Case) -> Exact {
    let (d, v) = (case.d, case.v);
    let (x, w) = inputs(case);
    let (x, w): (Vec<f64>, Vec<f64>) = (
        x.iter().map(|x| *x as f64).collect(),
        w.iter().map(|x| *x as f64).collect(),
    );
    let t = case.targets.len();
    let mut result = Exact {
        loss: vec![0.0; t],
        hits: vec![0; t],
        dx: vec![0.0; t * d],
        dw: vec![1.0; v * d],
    };
    for (t, target) in case.targets.iter().enumerate().filter(|(_, id)| **id >= 0) {
        let logits: Vec<f64> = (0..v)
            .map(|n| (0..d).map(|k| x[t * d + k] * w[n * d + k]).sum())
            .collect();
        let greatest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|l| (l - greatest).exp()).sum();
        let target = *target as usize;
        result.loss[t] = sum.ln() + greatest - logits[target];
        result.hits[t] = i32::from(logits.iter().position(|l| *l == greatest) == Some(target));
        for n in 0..v {
            let g = SCALE * ((logits[n] - greatest).exp() / sum - f64::from(n == target));
            for k in 0..d {
                result.dx[t * d + k] += g * w[n * d + k];
                result.dw[n * d + k] += g * x[t * d + k];
            }
        }
    }
    result
}

fn assert_near(actual: &[f32], exact: &[f64], tolerance: f64, what: &str) {
    let norm = |x: f64| x.sqrt();
    let size = norm(exact.iter().map(|e| e * e).sum::<f64>());
    let error = norm(
        actual
            .iter()
            .zip(exact)
            .map(|(a, e)| (*a as f64 - e).powi(2))
            .sum::<f64>(),
    );
    assert!(error <= tolerance * size, "{what}: {error:e} of {size:e}");
}

fn check(case: &Case) {
    let (t, d, v) = (case.targets.len(), case.d, case.v);
    let expected = exact(case);
    let (x, _) = inputs(case);
    let mut bytes: Option<Vec<u8>> = None;
    for isa in Isa::of_one_class() {
        for threads in [1, 2] {
            let mut run = place(case, &x);
            run.arena.run("linearCrossEntropy", threads, isa).unwrap();
            assert_near(&run.arena.read_f32(run.loss, t), &expected.loss, 1e-6, "loss");
            assert_eq!(run.arena.read_i32(run.hits, t), expected.hits);
            if case.gradients {
                let tolerance = if case.is_bf16 { 3e-3 } else { 2e-6 };
                assert_near(&run.arena.read_f32(run.dx, t * d), &expected.dx, tolerance, "dx");
                assert_near(&run.arena.read_f32(run.dw, v * d), &expected.dw, tolerance, "dw");
            }
            let mut found = Vec::new();
            for (at, len) in [(run.loss, t), (run.dx, t * d), (run.dw, v * d)] {
                if case.gradients || len == t {
                    found.extend(run.arena.read_f32(at, len).iter().flat_map(|x| x.to_le_bytes()));
                }
            }
            assert!(
                bytes.get_or_insert(found.clone()) == &found,
                "{isa}, {threads} threads"
            );
        }
    }
}

fn targets(t: usize, v: usize, ignored: impl Fn(usize) -> bool) -> Vec<i32> {
    (0..t)
        .map(|i| if ignored(i) { -1 } else { (i * 7 % v) as i32 })
        .collect()
}

#[test]
fn loss_hits_and_gradients_equal_the_definition_on_every_path() {
    for is_bf16 in [true, false] {
        for (t, d, v) in [(1, 8, 5), (7, 6, 33), (19, 33, 100), (33, 16, 64)] {
            for gradients in [true, false] {
                check(&Case {
                    d,
                    v,
                    targets: targets(t, v, |_| false),
                    is_bf16,
                    gradients,
                });
            }
        }
    }
}

/// In AMX registers, tokens and chunks end where tiles, blocks of rows and blocks of k do not.
#[test]
fn rows_in_tile_registers_equal_the_definition_with_the_bits_of_whole_chunks_for_every_thread_count() {
    if !Isa::Amx.available() {
        println!("this processor has no AMX: nothing to compare");
        return;
    }
    let kept = |_: usize| false;
    let holes = |i: usize| i % 3 == 1 || (600..900).contains(&i);
    for (t, d, v, ignored) in [
        (32, 8, 5, kept as fn(usize) -> bool),
        (40, 33, 100, kept),
        (77, 64, 1100, kept),
        (150, 600, 130, kept),
        (CHUNK + 300, 24, 333, kept),
        (2 * CHUNK + 100, 40, 70, holes),
        (1400, 16, 96, |i| i < 1100),
    ] {
        for gradients in [true, false] {
            let case = Case {
                d,
                v,
                targets: targets(t, v, ignored),
                is_bf16: true,
                gradients,
            };
            let (x, _) = inputs(&case);
            let results = |kernel: Kernel, threads| {
                let mut run = place(&case, &x);
                run.arena
                    .run_kernel(kernel, &Pool::new(threads), Isa::Amx)
                    .unwrap();
                if gradients && t <= CHUNK {
                    let right = exact(&case);
                    assert_near(&run.arena.read_f32(run.loss, t), &right.loss, 1e-6, "loss");
                    assert_near(&run.arena.read_f32(run.dx, t * d), &right.dx, 3e-3, "dx");
                    assert_near(&run.arena.read_f32(run.dw, v * d), &right.dw, 3e-3, "dw");
                }
                let mut found = run.arena.read_f32(run.loss, t);
                found.extend(run.arena.read_i32(run.hits, t).iter().map(|hit| *hit as f32));
                if gradients {
                    found.extend(run.arena.read_f32(run.dx, t * d));
                    found.extend(run.arena.read_f32(run.dw, v * d));
                }
                found.iter().map(|x| x.to_bits()).collect::<Vec<u32>>()
            };
            let plain = results(by_chunk_only, 1);
            for threads in [1, 2, 5] {
                let found = results(linear_cross_entropy, threads);
                assert!(found == plain, "{t} tokens, {d} x {v}, {threads} threads");
            }
        }
    }
}

#[test]
fn several_chunks_with_ignored_tokens_equal_the_definition() {
    let (d, v) = (8, 37);
    for is_bf16 in [true, false] {
        // A masked prompt across a chunk's end, scattered holes, a chunk of which nothing counts.
        for ignored in [
            |i: usize| i < CHUNK + 44,
            |i| i % 3 == 0,
            |i| (CHUNK..2 * CHUNK).contains(&i),
            |_| true,
        ] {
            check(&Case {
                d,
                v,
                targets: targets(2 * CHUNK + 88, v, ignored),
                is_bf16,
                gradients: true,
            });
        }
    }
}

#[test]
fn an_ignored_token_leaves_no_trace_even_if_its_x_is_no_number() {
    let case = Case {
        d: 6,
        v: 40,
        targets: targets(CHUNK + 44, 40, |i| i % 5 == 2),
        is_bf16: true,
        gradients: true,
    };
    let (x, _) = inputs(&case);
    let mut spoilt = x.clone();
    for t in (2..CHUNK + 44).step_by(5) {
        spoilt[t * 6..t * 6 + 6].fill(f32::NAN);
    }
    let (mut a, mut b) = (place(&case, &x), place(&case, &spoilt));
    a.arena.run("linearCrossEntropy", 2, Isa::detect()).unwrap();
    b.arena.run("linearCrossEntropy", 2, Isa::detect()).unwrap();
    assert_ne!(a.arena.read_bf16(a.x, 18), b.arena.read_bf16(b.x, 18));
    for (at, other, len) in [
        (a.loss, b.loss, CHUNK + 44),
        (a.dx, b.dx, 6 * (CHUNK + 44)),
        (a.dw, b.dw, 240),
    ] {
        assert_eq!(a.arena.read_f32(at, len), b.arena.read_f32(other, len));
    }
    assert!(
        b.arena.read_f32(b.dx, 1800)[12..18]
            .iter()
            .all(|g| g.to_bits() == 0)
    );
}

#[test]
fn a_row_alone_has_the_bits_it_has_among_others() {
    let case = Case {
        d: 24,
        v: 70,
        targets: targets(40, 70, |_| false),
        is_bf16: true,
        gradients: true,
    };
    let (x, _) = inputs(&case);
    let mut all = place(&case, &x);
    all.arena.run("linearCrossEntropy", 2, Isa::detect()).unwrap();
    for t in [0, 13, 39] {
        let alone = Case {
            targets: vec![case.targets[t]],
            ..case.clone()
        };
        let mut one = place(&alone, &x[t * 24..(t + 1) * 24]);
        one.arena.run("linearCrossEntropy", 1, Isa::detect()).unwrap();
        assert_eq!(
            one.arena.read_f32(one.loss, 1)[0],
            all.arena.read_f32(all.loss, 40)[t]
        );
        assert_eq!(
            one.arena.read_f32(one.dx, 24),
            all.arena.read_f32(all.dx, 960)[t * 24..(t + 1) * 24]
        );
    }
}

#[test]
fn a_target_outside_the_vocabulary_is_named() {
    for bad in [40, -2] {
        let case = Case {
            d: 6,
            v: 40,
            targets: vec![3, bad],
            is_bf16: false,
            gradients: false,
        };
        let (x, _) = inputs(&case);
        let error = place(&case, &x)
            .arena
            .run("linearCrossEntropy", 1, Isa::Portable)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("targets: {bad} at token 1 is no token of a vocabulary of 40, nor -1")
        );
    }
}

#[test]
fn sums_and_counts_are_those_of_doubles_on_every_path() {
    for n in [0, 1, 4095, 4096, 4097, 300_000] {
        let x = noise(n, 3);
        let ids: Vec<i32> = x.iter().map(|x| (x * 3.0) as i32).collect();
        let exact: f64 = x.iter().map(|x| *x as f64).sum();
        let positive = ids.iter().filter(|id| **id > 0).count();
        let mut bits = None;
        for isa in Isa::of_one_class() {
            for threads in [1, 2] {
                let mut sum = TestArena::new();
                sum.f32s(&x);
                let y = sum.f32s(&[77.0]);
                sum.numbers(&[n as f64, 0.5]);
                sum.run("reduceSum", threads, isa).unwrap();
                let found = sum.read_f32(y, 1)[0];
                assert!((found as f64 - 0.5 * exact).abs() < 1e-6 * (n as f64).sqrt().max(1.0));
                assert_eq!(
                    *bits.get_or_insert(found.to_bits()),
                    found.to_bits(),
                    "{isa} {threads}"
                );
                let mut count = TestArena::new();
                count.i32s(&ids);
                let y = count.f32s(&[77.0]);
                count.numbers(&[n as f64]);
                count.run("countPositive", threads, isa).unwrap();
                assert_eq!(count.read_f32(y, 1)[0], positive as f32);
            }
        }
    }
}
