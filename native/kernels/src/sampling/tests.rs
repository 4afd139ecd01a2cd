//! The op as a whole: equal on every path, exact supports, and what it says of rows that cannot be drawn from.

use crate::isa::Isa;
use crate::optim::test_arena::{TestArena, noise};

#[derive(Clone, Copy)]
struct Draw {
    row: usize,
    temperature: f64,
    top_k: usize,
    top_p: f64,
    counter: usize,
}

const PLAIN: Draw = Draw {
    row: 0,
    temperature: 1.0,
    top_k: 0,
    top_p: 1.0,
    counter: 0,
};

fn arena_of(
    logits: &[f32],
    v: usize,
    is_bf16: bool,
    draw: Draw,
) -> (TestArena, crate::optim::test_arena::At) {
    let mut arena = TestArena::new();
    arena.floats(logits, is_bf16);
    let token = arena.i32s(&[77]);
    arena.numbers(&[
        v as f64,
        draw.row as f64,
        draw.temperature,
        draw.top_k as f64,
        draw.top_p,
    ]);
    arena.numbers(&[42.0, draw.counter as f64]);
    (arena, token)
}

fn token_of(logits: &[f32], v: usize, draw: Draw) -> i32 {
    let mut tokens = Isa::usable().into_iter().map(|isa| {
        let (mut arena, token) = arena_of(logits, v, false, draw);
        arena.run("sample", 1, isa).unwrap();
        arena.read_i32(token, 1)[0]
    });
    let first = tokens.next().unwrap();
    assert!(tokens.all(|token| token == first), "equal on every path");
    first
}

#[test]
fn frequencies_are_the_probabilities_chi_square() {
    let logits = [0.5, -1.0, 2.0, 0.0, 1.5, -3.0, 0.7, 1.0];
    let temperature = 0.8;
    let draws = 20_000;
    let mut counts = [0.0; 8];
    for counter in 0..draws {
        counts[token_of(
            &logits,
            8,
            Draw {
                temperature,
                counter,
                ..PLAIN
            },
        ) as usize] += 1.0;
    }
    let weights = logits.map(|l: f32| (l as f64 / temperature).exp());
    let sum: f64 = weights.iter().sum();
    let chi_square: f64 = (0..8)
        .map(|i| {
            let expected = draws as f64 * weights[i] / sum;
            (counts[i] - expected) * (counts[i] - expected) / expected
        })
        .sum();
    // 7 degrees of freedom: 24.3 is exceeded once in a thousand times; the seed is fixed.
    assert!(chi_square < 24.3, "{chi_square}: {counts:?}");
}

#[test]
fn top_k_and_top_p_draw_exactly_from_their_support() {
    // Probabilities 0.4, 0.2, 0.2, 0.1, 0.1 of tokens 3, 1, 4, 0, 2.
    let logits = [0.1f32, 0.2, 0.1, 0.4, 0.2].map(f32::ln);
    let support = |top_k, top_p| {
        let mut seen: Vec<i32> = (0..400)
            .map(|counter| {
                token_of(
                    &logits,
                    5,
                    Draw {
                        top_k,
                        top_p,
                        counter,
                        ..PLAIN
                    },
                )
            })
            .collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    };
    assert_eq!(support(0, 1.0), [0, 1, 2, 3, 4]);
    assert_eq!(support(1, 1.0), [3]);
    assert_eq!(support(2, 1.0), [1, 3], "of equal logits the lower id is kept");
    assert_eq!(support(4, 1.0), [0, 1, 3, 4]);
    assert_eq!(
        support(9, 1.0),
        [0, 1, 2, 3, 4],
        "more than the vocabulary is all of it"
    );
    assert_eq!(support(0, 0.0), [3], "at least one token is kept");
    assert_eq!(support(0, 0.39), [3]);
    assert_eq!(support(0, 0.5), [1, 3]);
    assert_eq!(support(0, 0.79), [1, 3, 4]);
    assert_eq!(
        support(2, 0.6),
        [3],
        "top-p counts what top-k has left: 0.4 of 0.6"
    );
}

#[test]
fn temperature_zero_takes_the_first_of_the_greatest() {
    let logits = [-0.0, 0.0, -1.0, 3.0, 7.0, 7.0, f32::NEG_INFINITY, 2.0];
    assert_eq!(
        token_of(
            &logits,
            4,
            Draw {
                temperature: 0.0,
                ..PLAIN
            }
        ),
        3
    );
    assert_eq!(
        token_of(
            &logits,
            4,
            Draw {
                row: 1,
                temperature: 0.0,
                ..PLAIN
            }
        ),
        0
    );
    assert_eq!(
        token_of(
            &logits[..2],
            2,
            Draw {
                temperature: 0.0,
                ..PLAIN
            }
        ),
        0,
        "-0 equals 0"
    );
    assert_eq!(
        token_of(&logits[..2], 2, Draw { top_k: 1, ..PLAIN }),
        0,
        "-0 equals 0"
    );
}

#[test]
fn a_row_without_a_distribution_gives_minus_one() {
    for bad in [[f32::NAN, 1.0], [f32::INFINITY, 1.0], [f32::NEG_INFINITY; 2]] {
        for temperature in [0.0, 1.0] {
            assert_eq!(token_of(&bad, 2, Draw { temperature, ..PLAIN }), -1);
        }
    }
    for counter in 0..50 {
        assert_eq!(
            token_of(&[f32::NEG_INFINITY, -5.0], 2, Draw { counter, ..PLAIN }),
            1
        );
    }
}

#[test]
fn a_temperature_near_zero_is_as_good_as_zero() {
    let logits = noise(300, 8);
    let greatest = token_of(
        &logits,
        300,
        Draw {
            temperature: 0.0,
            ..PLAIN
        },
    );
    for counter in 0..50 {
        assert_eq!(
            token_of(
                &logits,
                300,
                Draw {
                    temperature: 1e-40,
                    counter,
                    ..PLAIN
                }
            ),
            greatest
        );
    }
}

#[test]
fn bf16_logits_are_drawn_as_their_widened_selves() {
    let logits: Vec<f32> = noise(501, 6)
        .iter()
        .map(|x| crate::bf16::round(x * 8.0))
        .collect();
    for counter in 0..100 {
        let draw = Draw {
            top_k: 50,
            top_p: 0.9,
            counter,
            ..PLAIN
        };
        let (mut arena, token) = arena_of(&logits, 501, true, draw);
        arena.run("sample", 1, Isa::detect()).unwrap();
        assert_eq!(arena.read_i32(token, 1)[0], token_of(&logits, 501, draw));
    }
}

#[test]
fn impossible_settings_are_refused_by_name() {
    for (draw, name) in [
        (
            Draw {
                temperature: -1.0,
                ..PLAIN
            },
            "temperature",
        ),
        (
            Draw {
                temperature: f64::NAN,
                ..PLAIN
            },
            "temperature",
        ),
        (Draw { top_p: 1.5, ..PLAIN }, "topP"),
        (Draw { row: 1000, ..PLAIN }, "logits"),
    ] {
        let (mut arena, _) = arena_of(&[1.0, 2.0], 2, false, draw);
        let error = arena.run("sample", 1, Isa::detect()).unwrap_err();
        assert_eq!(error.param, Some(name));
    }
}
