//! The bits of the stated order on all paths, exactness against f64, rows that are refused or absent.

use super::*;
use crate::moe::testing::{Arena, Operand, Random, same_on_all_paths};

struct Problem {
    tokens: usize,
    k: usize,
    d: usize,
    experts: usize,
    group_size: usize,
    rows: Vec<i32>,
    ids: Vec<i32>,
    weights: Option<Vec<f32>>,
    x: Vec<f32>,
    shared: Option<Vec<f32>>,
}

fn problem(tokens: usize, k: usize, d: usize, experts: usize, group_size: usize) -> Problem {
    let mut random = Random::new((tokens * k + d) as u64);
    let rows = random.shuffled(tokens * k);
    let mut ids = Vec::new();
    for _ in 0..tokens {
        let mut all: Vec<i32> = (0..experts as i32).collect();
        let mut chosen: Vec<i32> = (0..k).map(|_| all.swap_remove(random.below(all.len()))).collect();
        chosen.sort_unstable();
        ids.extend(chosen);
    }
    Problem {
        tokens,
        k,
        d,
        experts,
        group_size,
        rows,
        ids,
        weights: Some(random.normals(tokens * k, 1.0)),
        x: random.normals(tokens * k * d, 1.0),
        shared: Some(random.normals(tokens * d, 1.0)),
    }
}

fn run(p: &Problem, half: bool) -> Vec<f32> {
    same_on_all_paths(|ctx| {
        let mut arena = Arena::new();
        let float = |arena: &mut Arena, x: &[f32]| if half { arena.put_bf16(x) } else { arena.put(x) };
        let x = float(&mut arena, &p.x);
        let (rows, ids) = (arena.put_i32(&p.rows), arena.put_i32(&p.ids));
        let weights = p.weights.as_ref().map_or(Arena::ABSENT, |w| arena.put(w));
        let shared = p.shared.as_ref().map_or(Arena::ABSENT, |s| float(&mut arena, s));
        let n = p.tokens * p.d;
        let y: Operand = if half {
            arena.garbage_bf16(n)
        } else {
            arena.garbage(n)
        };
        let numbers = [p.tokens, p.k, p.d, p.tokens * p.k, p.group_size].map(|n| n as f64);
        arena
            .run(
                ctx,
                op,
                &[x, rows, ids, weights, shared, y, Arena::ABSENT],
                &numbers,
            )
            .unwrap();
        arena.f32s(y)
    })
}

/// The law's order in f32, element by element: the result must have these very bits.
fn in_order(p: &Problem, half: bool) -> Vec<f32> {
    let stored = |x: f32| if half { crate::bf16::round(x) } else { x };
    let mut y = Vec::new();
    for t in 0..p.tokens {
        for d in 0..p.d {
            let mut total = 0.0f32;
            for group in 0..p.experts.div_ceil(p.group_size) {
                let mut sum = 0.0f32;
                for slot in t * p.k..(t + 1) * p.k {
                    if p.ids[slot] as usize / p.group_size == group {
                        let weight = p.weights.as_ref().map_or(1.0, |w| w[slot]);
                        sum = stored(p.x[p.rows[slot] as usize * p.d + d]).mul_add(weight, sum);
                    }
                }
                total += sum;
            }
            let shared = p.shared.as_ref().map_or(0.0, |s| stored(s[t * p.d + d]));
            y.push(stored(total + shared));
        }
    }
    y
}

#[test]
fn every_sum_has_the_bits_of_its_stated_order() {
    for (tokens, k, d, experts, group_size) in [
        (1, 1, 1, 1, 1),
        (5, 2, 7, 8, 2),
        (200, 4, 64, 16, 4),
        (13, 8, 100, 64, 16),
        (6, 6, 1500, 64, 64),
        (4, 16, 33, 32, 8),
        (3, 9, 20, 20, 10),
    ] {
        let mut p = problem(tokens, k, d, experts, group_size);
        for half in [false, true] {
            assert_eq!(run(&p, half), in_order(&p, half), "K {k}, D {d}, bf16 {half}");
        }
        p.weights = None;
        p.shared = None;
        assert_eq!(run(&p, true), in_order(&p, true), "K {k}, D {d}, bare");
    }
}

#[test]
fn sums_are_exact_to_f32_against_f64() {
    let p = problem(20, 8, 50, 64, 8);
    let y = run(&p, false);
    for t in 0..20 {
        for d in 0..50 {
            let mut exact = p.shared.as_ref().map_or(0.0, |s| s[t * 50 + d] as f64);
            for slot in t * 8..(t + 1) * 8 {
                let weight = p.weights.as_ref().map_or(1.0, |w| w[slot] as f64);
                exact += weight * p.x[p.rows[slot] as usize * 50 + d] as f64;
            }
            assert!((y[t * 50 + d] as f64 - exact).abs() < 2e-6, "{t}, {d}");
        }
    }
}

#[test]
fn no_token_is_legal_and_a_row_outside_is_refused() {
    let mut p = problem(0, 2, 4, 4, 2);
    assert!(run(&p, true).is_empty());
    p = problem(2, 2, 4, 4, 2);
    for bad in [-2, 4] {
        let mut arena = Arena::new();
        let (x, ids) = (arena.put(&p.x), arena.put_i32(&p.ids));
        let rows = arena.put_i32(&[0, 1, 2, bad]);
        let y = arena.garbage(8);
        let operands = [x, rows, ids, Arena::ABSENT, Arena::ABSENT, y, Arena::ABSENT];
        let error = same_on_all_paths(|ctx| {
            arena
                .run(ctx, op, &operands, &[2.0, 2.0, 4.0, 4.0, 2.0])
                .unwrap_err()
        });
        assert_eq!(
            (error.param, error.message),
            (Some("slotRow"), format!("{bad} is no row of 4"))
        );
    }
}

#[test]
fn absent_slots_end_a_token_and_tokens_behind_the_count_stay_as_they_were() {
    let x: Vec<f32> = (0..6).map(|i| i as f32 + 1.0).collect();
    let y = same_on_all_paths(|ctx| {
        let mut arena = Arena::new();
        let at = arena.put(&x);
        let rows = arena.put_i32(&[2, 0, -1, -1, 1, 77, 5, 5]);
        let (y, count) = (arena.put(&[9.0; 8]), arena.put_i32(&[3]));
        let operands = [at, rows, Arena::ABSENT, Arena::ABSENT, Arena::ABSENT, y, count];
        // The row 77 of a token behind its end is refused all the same: rows are checked as they lie.
        assert!(arena.run(ctx, op, &operands, &[4.0, 2.0, 2.0, 3.0, 1.0]).is_err());
        let rows = arena.put_i32(&[2, 0, -1, -1, 1, -1, 5, 5]);
        let operands = [at, rows, Arena::ABSENT, Arena::ABSENT, Arena::ABSENT, y, count];
        arena.run(ctx, op, &operands, &[4.0, 2.0, 2.0, 3.0, 1.0]).unwrap();
        arena.f32s(y)
    });
    assert_eq!(y, [6.0, 8.0, 0.0, 0.0, 3.0, 4.0, 9.0, 9.0]);
}
