use super::*;
use crate::args::Dtype::{self, Bf16, F32, I32};
use crate::attention::oracle::{Command, Inputs, Problem, assert_close, bound, classes};
use crate::isa::Isa;

fn command(problem: &Problem, inputs: &Inputs, dtype: Dtype) -> Command {
    let mut command = Command::new();
    command
        .operand(&inputs.q, dtype)
        .operand(&inputs.kv, dtype)
        .operand(&inputs.k_rope, dtype)
        .operand(&problem.offsets(), I32)
        .output(problem.sizes()[3], dtype)
        .output(problem.heads * problem.tokens(), F32)
        .params(&problem.params());
    command
}

fn run(problem: &Problem, inputs: &Inputs, dtype: Dtype, isa: Isa, threads: usize) -> (Vec<f64>, Vec<f64>) {
    let mut command = command(problem, inputs, dtype);
    command.run(attention, isa, threads).unwrap();
    (command.read(4), command.read(5))
}

fn problems() -> Vec<Problem> {
    vec![
        Problem::new(&[1], 1, 2, 2, 1),
        Problem::new(&[5, 0, 17, 1], 2, 16, 8, 16),
        Problem::new(&[64], 1, 6, 4, 5),
        Problem::new(&[31, 33, 65], 3, 32, 16, 32),
        Problem::new(&[200, 129], 2, 24, 0, 40),
        Problem::new(&[300], 1, 0, 18, 20),
        Problem::new(&[150, 2], 1, 128, 64, 128),
    ]
}

#[test]
fn outputs_and_log_sums_equal_f64_loops() {
    for (seed, problem) in problems().iter().enumerate() {
        for dtype in [F32, Bf16] {
            let inputs = Inputs::random(problem, dtype, seed as u64);
            let (o, lse) = problem.forward(&inputs);
            for isa in Isa::usable() {
                let (actual_o, actual_lse) = run(problem, &inputs, dtype, isa, 2);
                assert_close(
                    &actual_o,
                    &o,
                    bound(dtype),
                    &format!("o of {:?} {isa}", problem.lengths),
                );
                assert_close(
                    &actual_lse,
                    &lse,
                    1e-6,
                    &format!("lse of {:?} {isa}", problem.lengths),
                );
            }
        }
    }
}

#[test]
fn instruction_sets_and_thread_counts_give_the_same_bits() {
    for problem in problems() {
        for dtype in [F32, Bf16] {
            let inputs = Inputs::random(&problem, dtype, 7);
            for class in classes(dtype) {
                let expected = run(&problem, &inputs, dtype, class[0], 1);
                for isa in class {
                    for threads in [1, 2, 3] {
                        let actual = run(&problem, &inputs, dtype, isa, threads);
                        let what = format!("{:?} {isa} {threads} threads", problem.lengths);
                        assert!(actual == expected, "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_sequence_has_the_same_bits_alone_and_between_others() {
    let batch = Problem::new(&[70, 131, 9], 2, 32, 16, 32);
    let alone = Problem::new(&[131], 2, 32, 16, 32);
    for dtype in [F32, Bf16] {
        let inputs = Inputs::random(&batch, dtype, 3);
        let part = |values: &[f64]| batch.part(values, 70..201);
        let own = inputs.of_tokens(&batch, 70..201);
        let (o, lse) = run(&batch, &inputs, dtype, Isa::detect(), 2);
        let (own_o, own_lse) = run(&alone, &own, dtype, Isa::detect(), 2);
        assert_eq!(part(&o), own_o);
        for head in 0..2 {
            let start = head * batch.tokens() + 70;
            assert_eq!(lse[start..start + 131], own_lse[head * 131..(head + 1) * 131]);
        }
    }
}

#[test]
fn a_query_has_the_same_bits_whatever_follows_it() {
    let whole = Problem::new(&[150], 1, 16, 8, 16);
    for dtype in [F32, Bf16] {
        let inputs = Inputs::random(&whole, dtype, 5);
        let (o, _) = run(&whole, &inputs, dtype, Isa::detect(), 1);
        for length in [1, 15, 16, 33, 64, 100, 149] {
            let prefix = Problem::new(&[length], 1, 16, 8, 16);
            let own = Inputs {
                q: inputs.q[..length * 24].to_vec(),
                kv: inputs.kv[..length * 32].to_vec(),
                k_rope: inputs.k_rope[..length * 8].to_vec(),
            };
            assert_eq!(
                run(&prefix, &own, dtype, Isa::detect(), 1).0,
                o[..length * 16],
                "{length}"
            );
        }
    }
}

#[test]
fn scores_far_apart_overflow_nothing() {
    let problem = Problem {
        scale: 300.0,
        ..Problem::new(&[90], 1, 8, 8, 8)
    };
    for dtype in [F32, Bf16] {
        let inputs = Inputs::random(&problem, dtype, 11);
        let (o, _) = run(&problem, &inputs, dtype, Isa::detect(), 1);
        assert!(o.iter().all(|v| v.is_finite() && v.abs() < 6.0));
    }
}

#[test]
fn offsets_that_do_not_fit_the_rows_are_refused_by_name() {
    let problem = Problem::new(&[5], 1, 4, 4, 4);
    let wrong = Problem {
        lengths: vec![6],
        ..problem.clone()
    };
    let inputs = Inputs::random(&problem, F32, 1);
    let mut command = Command::new();
    command
        .operand(&inputs.q, F32)
        .operand(&inputs.kv, F32)
        .operand(&inputs.k_rope, F32)
        .operand(&wrong.offsets(), I32)
        .output(20, F32)
        .output(5, F32)
        .params(&problem.params());
    let refused = command.run(attention, Isa::detect(), 1).unwrap_err();
    assert_eq!(refused.param, Some("seqOffsets"));
}
