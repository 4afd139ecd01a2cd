//! Dot products in lane order and rows weighed by their own slots, on all paths; slots that are refused or absent.

use crate::bf16;
use crate::math::dot;
use crate::moe::testing::{Arena, Operand, Random, same_on_all_paths};

struct Problem {
    k: usize,
    f: usize,
    rows: Vec<i32>,
    weights: Vec<f32>,
    d_hidden: Vec<f32>,
    hidden: Vec<f32>,
}

/// bf16 values, so that both storages hold them exactly.
fn problem(tokens: usize, k: usize, f: usize) -> Problem {
    let mut random = Random::new((tokens + 100 * f) as u64);
    let rows = random.shuffled(tokens * k);
    let mut values = |n: usize| -> Vec<f32> { random.normals(n, 1.0).into_iter().map(bf16::round).collect() };
    Problem {
        k,
        f,
        rows,
        weights: values(tokens * k),
        d_hidden: values(tokens * k * f),
        hidden: values(tokens * k * f),
    }
}

impl Problem {
    fn numbers(&self) -> [f64; 3] {
        [self.rows.len() / self.k, self.k, self.f].map(|n| n as f64)
    }
}

const SIZES: [(usize, usize, usize); 6] = [
    (1, 1, 1),
    (3, 2, 63),
    (100, 4, 64),
    (50, 8, 65),
    (7, 3, 1000),
    (0, 2, 8),
];

fn float(arena: &mut Arena, x: &[f32], half: bool) -> Operand {
    if half { arena.put_bf16(x) } else { arena.put(x) }
}

fn rounded(x: f32, half: bool) -> f32 {
    if half { bf16::round(x) } else { x }
}

#[test]
fn weights_get_the_dot_product_in_lane_order_and_rows_are_weighed_after_it() {
    for (tokens, k, f) in SIZES {
        let p = problem(tokens, k, f);
        for (half, half_hidden) in [(false, false), (true, true), (true, false), (false, true)] {
            let (d, dw) = same_on_all_paths(|ctx| {
                let mut arena = Arena::new();
                let d = float(&mut arena, &p.d_hidden, half);
                let hidden = float(&mut arena, &p.hidden, half_hidden);
                let (rows, weights) = (arena.put_i32(&p.rows), arena.put(&p.weights));
                let dw = arena.garbage(p.rows.len());
                arena
                    .run(
                        ctx,
                        super::backward,
                        &[d, hidden, rows, weights, dw, Arena::ABSENT],
                        &p.numbers(),
                    )
                    .unwrap();
                (arena.f32s(d), arena.f32s(dw))
            });
            for slot in 0..tokens * k {
                let row = p.rows[slot] as usize * f;
                let (g, hidden) = (&p.d_hidden[row..row + f], &p.hidden[row..row + f]);
                assert_eq!(dw[slot].to_bits(), dot(g, hidden).to_bits(), "dWeights {slot}");
                let exact: f64 = g.iter().zip(hidden).map(|(a, b)| *a as f64 * *b as f64).sum();
                let size: f64 = g
                    .iter()
                    .zip(hidden)
                    .map(|(a, b)| (*a as f64 * *b as f64).abs())
                    .sum();
                assert!((dw[slot] as f64 - exact).abs() <= 1e-6 * size);
                let weighed: Vec<f32> = g.iter().map(|g| rounded(p.weights[slot] * g, half)).collect();
                assert_eq!(d[row..row + f], weighed, "dHidden of slot {slot}");
            }
        }
    }
}

#[test]
fn rows_are_weighed_by_their_own_slot() {
    for (tokens, k, f) in SIZES {
        let p = problem(tokens, k, f);
        for (half, half_y) in [(false, false), (true, true), (true, false), (false, true)] {
            let y = same_on_all_paths(|ctx| {
                let mut arena = Arena::new();
                let x = float(&mut arena, &p.hidden, half);
                let (rows, weights) = (arena.put_i32(&p.rows), arena.put(&p.weights));
                let y = if half_y {
                    arena.garbage_bf16(p.hidden.len())
                } else {
                    arena.garbage(p.hidden.len())
                };
                arena
                    .run(
                        ctx,
                        super::weigh,
                        &[x, rows, weights, y, Arena::ABSENT],
                        &p.numbers(),
                    )
                    .unwrap();
                arena.f32s(y)
            });
            for slot in 0..tokens * k {
                let row = p.rows[slot] as usize * f;
                for i in row..row + f {
                    assert_eq!(y[i], rounded(p.weights[slot] * p.hidden[i], half_y));
                }
            }
        }
    }
}

#[test]
fn rows_that_are_no_permutation_are_refused_by_both() {
    for (rows, message) in [
        ([0, 0], "row 0 is named twice"),
        ([0, 2], "2 is no row of 2"),
        ([-1, 0], "-1 is no row of 2"),
    ] {
        let mut arena = Arena::new();
        let (d, hidden, w) = (arena.garbage(8), arena.garbage(8), arena.garbage(2));
        let (rows, dw) = (arena.put_i32(&rows), arena.garbage(2));
        let numbers = [1.0, 2.0, 4.0];
        let errors = same_on_all_paths(|ctx| {
            [
                arena
                    .run(
                        ctx,
                        super::backward,
                        &[d, hidden, rows, w, dw, Arena::ABSENT],
                        &numbers,
                    )
                    .unwrap_err()
                    .message,
                arena
                    .run(ctx, super::weigh, &[hidden, rows, w, d, Arena::ABSENT], &numbers)
                    .unwrap_err()
                    .message,
            ]
        });
        assert_eq!(errors, [message, message]);
    }
}

#[test]
fn without_slots_rows_are_weighed_in_order_up_to_the_count() {
    let p = problem(5, 1, 33);
    let numbers = p.numbers();
    let (d, dw, y) = same_on_all_paths(|ctx| {
        let mut arena = Arena::new();
        let (d, hidden) = (arena.put(&p.d_hidden), arena.put(&p.hidden));
        let (weights, count) = (arena.put(&p.weights), arena.put_i32(&[3]));
        let (dw, y) = (arena.put(&[7.0; 5]), arena.put(&[7.0; 5 * 33]));
        let absent = Arena::ABSENT;
        let back = [d, hidden, absent, weights, dw, count];
        arena.run(ctx, super::backward, &back, &numbers).unwrap();
        let weigh = [hidden, absent, weights, y, count];
        arena.run(ctx, super::weigh, &weigh, &numbers).unwrap();
        (arena.f32s(d), arena.f32s(dw), arena.f32s(y))
    });
    for slot in 0..5 {
        let row = slot * 33..(slot + 1) * 33;
        let (g, hidden) = (&p.d_hidden[row.clone()], &p.hidden[row.clone()]);
        if slot < 3 {
            assert_eq!(dw[slot].to_bits(), dot(g, hidden).to_bits());
            assert!(
                d[row.clone()]
                    .iter()
                    .zip(g)
                    .all(|(d, g)| *d == p.weights[slot] * g)
            );
            assert!(y[row].iter().zip(hidden).all(|(y, h)| *y == p.weights[slot] * h));
        } else {
            assert_eq!((dw[slot], &d[row.clone()], &y[row]), (7.0, g, &[7.0; 33][..]));
        }
    }
}
