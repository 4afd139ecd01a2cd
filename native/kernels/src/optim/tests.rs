//! AdamW, norm and EMA against straight loops in doubles, on every path.

use super::adamw::clip_factor;
use crate::bf16;
use crate::isa::Isa;
use crate::optim::test_arena::{At, TestArena, noise};

const SETTINGS: [f64; 7] = [2.2e-3, 0.9, 0.95, 1e-8, 0.1, 3.0, 1.0];

#[derive(Clone, Copy)]
struct Case {
    dims: [usize; 3],
    moments_bf16: [bool; 2],
    /// f32 or bf16 panels, or none.
    panels: Option<bool>,
    transposed: Option<bool>,
    norm: Option<f32>,
}

struct Placed {
    arena: TestArena,
    w: At,
    grad: At,
    m: At,
    v: At,
    panels: At,
    transposed: At,
}

fn inputs(size: usize) -> [Vec<f32>; 4] {
    // No tiny ones: they would magnify the rounding of the gradient without end.
    let squares = noise(size, 4)
        .iter()
        .map(|x| bf16::round(x * x * 0.1 + 0.02))
        .collect();
    let m = noise(size, 3).iter().map(|x| bf16::round(x * 0.3)).collect();
    [noise(size, 1), noise(size, 2), m, squares]
}

fn place(case: Case) -> Placed {
    let [b, n, k] = case.dims;
    let [w, grad, m, v] = inputs(b * n * k);
    let mut arena = TestArena::new();
    let w = arena.f32s(&w);
    let grad = arena.f32s(&grad);
    let m = arena.floats(&m, case.moments_bf16[0]);
    let v = arena.floats(&v, case.moments_bf16[1]);
    match case.norm {
        Some(norm) => drop(arena.f32s(&[norm])),
        None => arena.absent(),
    }
    let mut packed = |len: usize, kind: Option<bool>| match kind {
        Some(is_bf16) => arena.floats(&vec![77.0; len], is_bf16),
        None => {
            arena.absent();
            w
        }
    };
    let panels = packed(b * n.div_ceil(32) * 32 * k.next_multiple_of(2), case.panels);
    let transposed = packed(b * k.div_ceil(32) * 32 * n.next_multiple_of(2), case.transposed);
    arena.numbers(&[b as f64, n as f64, k as f64]);
    arena.numbers(&SETTINGS);
    Placed {
        arena,
        w,
        grad,
        m,
        v,
        panels,
        transposed,
    }
}

/// The definition in doubles: new weight, moments.
fn exact(case: Case) -> [Vec<f64>; 3] {
    let [b, n, k] = case.dims;
    let [lr, beta1, beta2, eps, decay, step, clip] = SETTINGS;
    let factor = case
        .norm
        .map_or(1.0, |norm| (clip / (norm as f64 + 1e-6)).min(1.0));
    let [w, grad, m, v] = inputs(b * n * k).map(|x| x.iter().map(|x| *x as f64).collect::<Vec<_>>());
    let mut result = [Vec::new(), Vec::new(), Vec::new()];
    for i in 0..b * n * k {
        let g = grad[i] * factor;
        let m = beta1 * m[i] + (1.0 - beta1) * g;
        let v = beta2 * v[i] + (1.0 - beta2) * g * g;
        let direction = m / (1.0 - beta1.powf(step)) / ((v / (1.0 - beta2.powf(step))).sqrt() + eps);
        result[0].push(w[i] - lr * decay * w[i] - lr * direction);
        result[1].push(m);
        result[2].push(v);
    }
    result
}

fn assert_near(actual: &[f32], exact: &[f64], tolerance: f64, what: &str) {
    for (i, (a, e)) in actual.iter().zip(exact).enumerate() {
        assert!(
            (*a as f64 - e).abs() <= tolerance * (e.abs() + 1e-2),
            "{what}[{i}]: {a} against {e}"
        );
    }
}

/// Panels by the formula of the layout; padding zero.
fn panels_by_formula(w: &[f32], [b, n, k]: [usize; 3], is_bf16: bool, is_transposed: bool) -> Vec<f32> {
    let (outputs, depth) = if is_transposed { (k, n) } else { (n, k) };
    let block = outputs.div_ceil(32) * 32 * depth.next_multiple_of(2);
    let mut panels = vec![0.0; b * block];
    for matrix in 0..b {
        for o in 0..outputs {
            for d in 0..depth {
                let (row, column) = if is_transposed { (d, o) } else { (o, d) };
                let value = w[(matrix * n + row) * k + column];
                let start = matrix * block + o / 32 * 32 * depth.next_multiple_of(2);
                if is_bf16 {
                    panels[start + d / 2 * 64 + o % 32 * 2 + d % 2] = bf16::round(value);
                } else {
                    panels[start + d * 32 + o % 32] = value;
                }
            }
        }
    }
    panels
}

fn check(case: Case) {
    let [b, n, k] = case.dims;
    let size = b * n * k;
    let [w, m, v] = exact(case);
    let mut expected: Option<Vec<u8>> = None;
    for isa in Isa::usable() {
        for threads in [1, 2] {
            let mut run = place(case);
            run.arena.run("adamw", threads, isa).unwrap();
            let bytes = run.arena.snapshot();
            assert!(
                expected.get_or_insert(bytes.clone()) == &bytes,
                "{isa}, {threads} threads"
            );
            let w_new = run.arena.read_f32(run.w, size);
            assert!(run.arena.read_f32(run.grad, size).iter().all(|g| *g == 0.0));
            assert_near(&w_new, &w, 1e-6, "w");
            for (at, exact, is_bf16, what) in [
                (run.m, &m, case.moments_bf16[0], "m"),
                (run.v, &v, case.moments_bf16[1], "v"),
            ] {
                let tolerance = if is_bf16 { 4e-3 } else { 1e-6 };
                assert_near(&run.arena.read(at, size, is_bf16), exact, tolerance, what);
            }
            for (at, kind, is_transposed) in [
                (run.panels, case.panels, false),
                (run.transposed, case.transposed, true),
            ] {
                let Some(is_bf16) = kind else { continue };
                let formula = panels_by_formula(&w_new, case.dims, is_bf16, is_transposed);
                let actual = run.arena.read(at, formula.len(), is_bf16);
                assert!(
                    actual == formula,
                    "{isa} panels of {:?} transposed {is_transposed}",
                    case.dims
                );
            }
        }
    }
}

#[test]
fn a_step_equals_the_definition_and_its_panels_the_layout() {
    let base = Case {
        dims: [1, 70, 150],
        moments_bf16: [false, false],
        panels: Some(true),
        transposed: Some(true),
        norm: Some(2.5),
    };
    check(base);
    check(Case {
        moments_bf16: [true, true],
        ..base
    });
    check(Case {
        moments_bf16: [true, false],
        norm: None,
        ..base
    });
    check(Case {
        panels: Some(false),
        transposed: Some(false),
        ..base
    });
    check(Case {
        panels: Some(true),
        transposed: None,
        norm: Some(0.2),
        ..base
    });
    check(Case {
        panels: None,
        transposed: Some(true),
        ..base
    });
    check(Case {
        panels: None,
        transposed: None,
        dims: [1, 3, 20_001],
        ..base
    });
}

#[test]
fn odd_and_batched_shapes_pad_with_zeros() {
    for dims in [
        [1, 1, 1],
        [3, 33, 31],
        [2, 32, 128],
        [1, 31, 129],
        [5, 5, 257],
        [2, 0, 7],
        [2, 7, 0],
        [40, 64, 64],
    ] {
        for is_bf16 in [true, false] {
            check(Case {
                dims,
                moments_bf16: [false, false],
                panels: Some(is_bf16),
                transposed: Some(is_bf16),
                norm: None,
            });
        }
    }
}

#[test]
fn the_panels_are_those_of_pack_weight() {
    let case = Case {
        dims: [3, 45, 77],
        moments_bf16: [false, false],
        panels: Some(true),
        transposed: Some(true),
        norm: None,
    };
    let mut run = place(case);
    run.arena.run("adamw", 2, Isa::detect()).unwrap();
    let w = run.arena.read_f32(run.w, 3 * 45 * 77);
    let mut pack = TestArena::new();
    pack.f32s(&w);
    let panels = pack.bf16s(&vec![0.0; 3 * 64 * 78]);
    let transposed = pack.bf16s(&vec![0.0; 3 * 96 * 46]);
    pack.numbers(&[3.0, 45.0, 77.0]);
    pack.run("packWeight", 1, Isa::detect()).unwrap();
    assert_eq!(
        run.arena.read_bf16(run.panels, 3 * 64 * 78),
        pack.read_bf16(panels, 3 * 64 * 78)
    );
    assert_eq!(
        run.arena.read_bf16(run.transposed, 3 * 96 * 46),
        pack.read_bf16(transposed, 3 * 96 * 46)
    );
}

#[test]
fn a_norm_that_is_no_number_is_not_taken_for_a_small_one() {
    assert!(clip_factor(1.0, f32::NAN).is_nan());
    assert_eq!(clip_factor(1.0, f32::INFINITY), 0.0);
    assert_eq!(clip_factor(1.0, 0.5), 1.0);
    assert!((clip_factor(1.0, 4.0) - 0.25).abs() < 1e-6);
}

#[test]
fn step_zero_is_refused() {
    let mut arena = TestArena::new();
    for _ in 0..4 {
        arena.f32s(&[1.0]);
    }
    (0..3).for_each(|_| arena.absent());
    arena.numbers(&[1.0, 1.0, 1.0, 1e-3, 0.9, 0.95, 1e-8, 0.0, 0.0, 1.0]);
    assert_eq!(
        arena.run("adamw", 1, Isa::Portable).unwrap_err().param,
        Some("step")
    );
}

#[test]
fn the_gradient_norm_is_that_of_doubles_on_every_path() {
    for n in [0, 1, 4095, 4096, 4097, 300_000] {
        for is_bf16 in [false, true] {
            let x: Vec<f32> = noise(n, 9).iter().map(|x| bf16::round(x * 1e-3)).collect();
            let exact: f64 = x.iter().map(|x| (*x as f64).powi(2)).sum();
            let mut bits = None;
            for isa in Isa::usable() {
                for threads in [1, 2] {
                    let mut squares = TestArena::new();
                    squares.floats(&x, is_bf16);
                    let partial = squares.f32s(&[77.0]);
                    squares.numbers(&[n as f64]);
                    squares.run("sumSquares", threads, isa).unwrap();
                    let found = squares.read_f32(partial, 1)[0];
                    assert!(
                        (found as f64 - exact).abs() <= 1e-6 * exact,
                        "{n}: {found} {exact}"
                    );
                    assert_eq!(
                        *bits.get_or_insert(found.to_bits()),
                        found.to_bits(),
                        "{isa} {threads}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_norm_of_partials_is_the_root_of_their_sum_and_keeps_what_is_no_number() {
    let norm_of = |partials: &[f32]| {
        let mut arena = TestArena::new();
        arena.f32s(partials);
        let norm = arena.f32s(&[77.0]);
        arena.numbers(&[partials.len() as f64]);
        arena.run("gradNorm", 1, Isa::detect()).unwrap();
        arena.read_f32(norm, 1)[0]
    };
    assert_eq!(norm_of(&[]), 0.0);
    assert_eq!(norm_of(&[9.0, 0.0, 16.0]), 5.0);
    assert_eq!(norm_of(&[1.0, f32::INFINITY]), f32::INFINITY);
    assert!(norm_of(&[1.0, f32::NAN]).is_nan());
}

#[test]
fn the_moving_average_follows_its_equation_and_rests_where_the_weights_rest() {
    for (ema_bf16, w_bf16) in [(false, false), (false, true), (true, false)] {
        let n = 70_001;
        let rounded = |seed| noise(n, seed).into_iter().map(bf16::round).collect::<Vec<f32>>();
        let (before, mut w) = (rounded(1), rounded(2));
        w[7] = before[7];
        let mut bits: Option<Vec<u8>> = None;
        for isa in Isa::usable() {
            for threads in [1, 2] {
                let mut arena = TestArena::new();
                let ema = arena.floats(&before, ema_bf16);
                arena.floats(&w, w_bf16);
                arena.numbers(&[n as f64, 0.99]);
                arena.run("ema", threads, isa).unwrap();
                let after = arena.read(ema, n, ema_bf16);
                for i in 0..n {
                    let exact = 0.99 * before[i] as f64 + 0.01 * w[i] as f64;
                    let tolerance = if ema_bf16 { 4e-3 * exact.abs() } else { 2e-7 };
                    assert!((after[i] as f64 - exact).abs() <= tolerance, "{i}");
                }
                assert_eq!(after[7], before[7]);
                let bytes = arena.snapshot();
                assert!(bits.get_or_insert(bytes.clone()) == &bytes, "{isa} {threads}");
            }
        }
    }
}
