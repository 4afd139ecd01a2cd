use super::lines;
use super::plain::{self, exp2_scaled};
use crate::args::Dtype::{Bf16, F32, I32};
use crate::attention::OPS;
use crate::attention::oracle::{Command, Inputs, Problem, numbers};
use crate::isa::Isa;
use crate::ops::Kernel;
use crate::pool::FloatMode;
use std::arch::x86_64::*;

/// Tails of every kind: one token, rows and channels that fill no block, several groups, heads without plain or
/// without rotated channels, an odd split of a pair of channels, the largest heads.
fn problems() -> Vec<Problem> {
    vec![
        Problem::new(&[1], 1, 2, 2, 1),
        Problem::new(&[5, 0, 17, 1, 32], 2, 16, 8, 16),
        Problem::new(&[31, 33, 65], 3, 32, 16, 32),
        Problem::new(&[290, 100], 2, 19, 12, 40),
        Problem::new(&[129], 1, 0, 18, 20),
        Problem::new(&[64], 2, 96, 0, 64),
        Problem::new(&[70, 2], 1, 128, 64, 128),
    ]
}

fn kernel(name: &str) -> Kernel {
    OPS.iter().find(|(op, _)| *op == name).expect(name).1
}

fn assert_bits(actual: &[f64], expected: &[f32], what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert_eq!(
            (*a as f32).to_bits(),
            e.to_bits(),
            "{what}, element {i}: {a} and {e}"
        );
    }
}

#[test]
fn both_passes_have_the_bits_of_their_plain_twins() {
    if !Isa::Amx.available() {
        return;
    }
    for (seed, problem) in problems().iter().enumerate() {
        let inputs = Inputs::random(problem, Bf16, seed as u64);
        let [q, kv, k_rope, outputs] = problem.sizes();
        let rows = problem.heads * problem.tokens();
        let mut command = Command::new();
        command
            .operand(&inputs.q, Bf16)
            .operand(&inputs.kv, Bf16)
            .operand(&inputs.k_rope, Bf16)
            .operand(&problem.offsets(), I32)
            .output(outputs, F32)
            .output(rows, F32)
            .params(&problem.params());
        command.run(kernel("attention"), Isa::Amx, 2).unwrap();
        let (o, lse) = plain::forward(problem, &inputs);
        assert_bits(&command.read(4), &o, &format!("o of {:?}", problem.lengths));
        assert_bits(&command.read(5), &lse, &format!("lse of {:?}", problem.lengths));

        let (o, lse) = (command.read(4), command.read(5));
        let d_o = numbers(outputs, Bf16, 100 + seed as u64);
        let mut command = Command::new();
        command
            .operand(&d_o, Bf16)
            .operand(&inputs.q, Bf16)
            .operand(&inputs.kv, Bf16)
            .operand(&inputs.k_rope, Bf16)
            .operand(&o, F32)
            .operand(&lse, F32)
            .operand(&problem.offsets(), I32)
            .output(q, F32)
            .output(kv, F32)
            .output(k_rope, F32)
            .output(rows * (problem.rope + 1), F32)
            .params(&problem.params());
        command.run(kernel("attentionBackward"), Isa::Amx, 2).unwrap();
        let expected = plain::backward(problem, &inputs, &d_o, &o, &lse);
        for (operand, (name, expected)) in ["dq", "dkv", "dkRope"].iter().zip(&expected).enumerate() {
            let what = format!("{name} of {:?}", problem.lengths);
            assert_bits(&command.read(7 + operand), expected, &what);
        }
    }
}

/// `lines::exp2_scaled` of sixteen numbers.
#[target_feature(enable = "avx512f")]
fn sixteen(x: [f32; 16], factor: f32, shift: f32) -> [f32; 16] {
    let mut results = [0.0; 16];
    // SAFETY: sixteen floats each.
    unsafe {
        let x = _mm512_loadu_ps(x.as_ptr());
        let y = lines::exp2_scaled(x, _mm512_set1_ps(factor), _mm512_set1_ps(shift));
        _mm512_storeu_ps(results.as_mut_ptr(), y);
    }
    results
}

#[test]
fn powers_of_two_are_near_the_exact_ones_and_have_the_bits_of_their_twin() {
    if !Isa::Amx.available() {
        return;
    }
    let _flushing = FloatMode::enter();
    let (factor, shift) = (0.25f32, -1.5f32);
    for i in 0..40_000 {
        let x = std::array::from_fn(|lane| -600.0 + (16 * i + lane) as f32 * (620.0 / 640_000.0));
        // SAFETY: the processor has AMX, and AVX-512 with it.
        for (x, y) in x.into_iter().zip(unsafe { sixteen(x, factor, shift) }) {
            assert_eq!(y.to_bits(), exp2_scaled(x, factor, shift).to_bits(), "{x}");
            let argument = f64::from(x.mul_add(factor, shift));
            let exact = argument.exp2();
            if argument > -125.5 {
                assert!(
                    (f64::from(y) / exact - 1.0).abs() < 1.7e-7,
                    "{x}: {y} and {exact}"
                );
            } else {
                assert!(f64::from(y) <= 1.01 * exact, "{x}: {y} and {exact}");
            }
        }
    }
    // SAFETY: as above.
    let far = unsafe { sixteen([-3e38; 16], 1.0, 0.0) };
    assert!(far.iter().all(|y| *y == 0.0));
}
