use super::*;
use crate::args::Dtype::{self, Bf16, F32};
use crate::attention::oracle::{Command, Problem, assert_close, bound, latent_inputs, numbers};
use crate::bf16;
use crate::isa::Isa;

/// Sizes of one decode step.
#[derive(Clone, Copy, Debug)]
struct Step {
    tokens: usize,
    past: usize,
    heads: usize,
    nope: usize,
    rope: usize,
    value: usize,
    latent: usize,
}

struct Operands {
    q: Vec<f64>,
    kv_b: Vec<f64>,
    latents: Vec<f64>,
    k_rope: Vec<f64>,
}

fn operands(step: Step, dtype: Dtype) -> Operands {
    let Step {
        tokens,
        past,
        heads,
        nope,
        rope,
        value,
        latent,
    } = step;
    let weights = numbers(heads * (nope + value) * latent, dtype, 2);
    let small = (latent as f64).log2().round() as i32 / 2;
    Operands {
        q: numbers(tokens * heads * (nope + rope), dtype, 1),
        kv_b: weights.iter().map(|w| w * 2f64.powi(-small)).collect(),
        latents: numbers((past + tokens) * latent, dtype, 3),
        k_rope: numbers((past + tokens) * rope, dtype, 4),
    }
}

fn run(step: Step, x: &Operands, dtype: Dtype, round: bool, isa: Isa, threads: usize) -> Vec<f64> {
    let Step {
        tokens,
        past,
        heads,
        nope,
        rope,
        value,
        latent,
    } = step;
    let counts = [tokens, heads, nope, rope, value, latent, past].map(|n| n as f64);
    let scale = 1.0 / ((nope + rope) as f64).sqrt();
    let mut command = Command::new();
    command
        .operand(&x.q, dtype)
        .operand(&x.kv_b, dtype)
        .operand(&x.latents, dtype)
        .operand(&x.k_rope, dtype)
        .output(tokens * heads * value, dtype)
        .params(&counts)
        .params(&[scale, round as u8 as f64]);
    command.run(absorbed_attention, isa, threads).unwrap();
    command.read(4)
}

/// The expanded form in f64: keys and values of every cached token made from its latent.
fn expanded(step: Step, x: &Operands, round: bool) -> Vec<f64> {
    let Step {
        tokens,
        past,
        heads,
        nope,
        rope,
        value,
        latent,
    } = step;
    let problem = Problem::new(&[past + tokens], heads, nope, rope, value);
    let round = |w: &f64| if round { bf16::round(*w as f32) as f64 } else { *w };
    let kv_b: Vec<f64> = x.kv_b.iter().map(round).collect();
    let inputs = latent_inputs(&problem, &x.q, &kv_b, &x.latents, &x.k_rope, latent);
    problem.forward(&inputs).0[past * heads * value..].to_vec()
}

fn steps() -> Vec<Step> {
    let nano = Step {
        tokens: 1,
        past: 0,
        heads: 4,
        nope: 32,
        rope: 16,
        value: 32,
        latent: 64,
    };
    vec![
        nano,
        Step { past: 100, ..nano },
        Step {
            tokens: 3,
            past: 61,
            ..nano
        },
        Step {
            tokens: 35,
            past: 20,
            heads: 3,
            nope: 6,
            rope: 4,
            value: 5,
            latent: 20,
        },
        Step {
            tokens: 2,
            past: 127,
            heads: 5,
            nope: 8,
            rope: 0,
            value: 40,
            latent: 48,
        },
        Step {
            tokens: 1,
            past: 200,
            heads: 9,
            nope: 128,
            rope: 64,
            value: 128,
            latent: 512,
        },
    ]
}

#[test]
fn the_absorbed_form_equals_the_expanded_one() {
    for step in steps() {
        for (dtype, round) in [(F32, false), (F32, true), (Bf16, true)] {
            let x = operands(step, dtype);
            let expected = expanded(step, &x, round);
            // Three products, one behind the other.
            let bound = 5.0 * bound(F32).max(bound(dtype) / 5.0);
            for isa in Isa::usable() {
                let actual = run(step, &x, dtype, round, isa, 2);
                assert_close(&actual, &expected, bound, &format!("{step:?} {isa}"));
            }
        }
    }
}

#[test]
fn instruction_sets_and_thread_counts_give_the_same_bits() {
    for step in steps() {
        for (dtype, round) in [(F32, true), (Bf16, false)] {
            let x = operands(step, dtype);
            let expected = run(step, &x, dtype, round, Isa::Portable, 1);
            for isa in Isa::usable() {
                for threads in [1, 2, 5] {
                    assert!(
                        run(step, &x, dtype, round, isa, threads) == expected,
                        "{step:?} {isa} {threads}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_token_has_the_same_bits_alone_and_asked_with_others() {
    let step = Step {
        tokens: 37,
        past: 50,
        heads: 3,
        nope: 16,
        rope: 8,
        value: 16,
        latent: 32,
    };
    let x = operands(step, F32);
    let together = run(step, &x, F32, false, Isa::detect(), 2);
    for token in [0, 1, 15, 16, 36] {
        let past = step.past + token;
        let own = Operands {
            q: x.q[token * 72..(token + 1) * 72].to_vec(),
            kv_b: x.kv_b.clone(),
            latents: x.latents[..(past + 1) * 32].to_vec(),
            k_rope: x.k_rope[..(past + 1) * 8].to_vec(),
        };
        let alone = run(
            Step {
                tokens: 1,
                past,
                ..step
            },
            &own,
            F32,
            false,
            Isa::detect(),
            1,
        );
        assert_eq!(alone, together[token * 48..(token + 1) * 48], "token {token}");
    }
}

#[test]
fn a_cache_shorter_than_the_past_is_refused_by_name() {
    let step = steps()[1];
    let x = operands(step, F32);
    let mut command = Command::new();
    command
        .operand(&x.q, F32)
        .operand(&x.kv_b, F32)
        .operand(&x.latents, F32)
        .operand(&x.k_rope, F32);
    command
        .output(128, F32)
        .params(&[1.0, 4.0, 32.0, 16.0, 32.0, 64.0, 1e6, 0.1, 0.0]);
    let refused = command.run(absorbed_attention, Isa::detect(), 1).unwrap_err();
    assert_eq!(refused.param, Some("cacheLatent"));
}
