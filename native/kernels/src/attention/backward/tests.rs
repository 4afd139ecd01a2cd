use super::*;
use crate::args::Dtype::{self, Bf16, F32, I32};
use crate::attention::oracle::{Command, Inputs, Problem, assert_close, bound, classes, numbers};
use crate::isa::Isa;

fn run(
    problem: &Problem,
    inputs: &Inputs,
    d_o: &[f64],
    dtype: Dtype,
    isa: Isa,
    threads: usize,
) -> [Vec<f64>; 3] {
    let (o, lse) = problem.forward(inputs);
    let [q, kv, k_rope, _] = problem.sizes();
    let mut command = Command::new();
    command
        .operand(d_o, dtype)
        .operand(&inputs.q, dtype)
        .operand(&inputs.kv, dtype)
        .operand(&inputs.k_rope, dtype)
        .operand(&o, dtype)
        .operand(&lse, F32)
        .operand(&problem.offsets(), I32)
        .output(q, dtype)
        .output(kv, dtype)
        .output(k_rope, dtype)
        .output(problem.heads * problem.tokens() * (problem.rope + 1), F32)
        .params(&problem.params());
    command.run(attention_backward, isa, threads).unwrap();
    [7, 8, 9].map(|operand| command.read(operand))
}

fn problems() -> Vec<Problem> {
    vec![
        Problem::new(&[1], 1, 2, 2, 1),
        Problem::new(&[5, 0, 17, 1], 2, 16, 8, 16),
        Problem::new(&[64], 1, 6, 4, 5),
        Problem::new(&[31, 33, 65], 3, 32, 16, 32),
        Problem::new(&[200, 129], 2, 24, 0, 40),
        Problem::new(&[177], 1, 0, 18, 20),
        Problem::new(&[290, 33], 2, 19, 12, 40),
        Problem::new(&[150, 2], 1, 128, 64, 128),
    ]
}

#[test]
fn gradients_equal_f64_loops() {
    for (seed, problem) in problems().iter().enumerate() {
        for dtype in [F32, Bf16] {
            let inputs = Inputs::random(problem, dtype, seed as u64);
            let d_o = numbers(problem.sizes()[3], dtype, 100 + seed as u64);
            let expected = problem.backward(&inputs, &d_o);
            // A stored o of bf16 moves rowsum(do o), and with it every ds of the row.
            let bound = if dtype == Bf16 {
                2.0 * bound(dtype)
            } else {
                bound(dtype)
            };
            for isa in Isa::usable() {
                let actual = run(problem, &inputs, &d_o, dtype, isa, 2);
                for (name, (a, e)) in ["dq", "dkv", "dkRope"].iter().zip(actual.iter().zip(&expected)) {
                    assert_close(a, e, bound, &format!("{name} of {:?} {isa}", problem.lengths));
                }
            }
        }
    }
}

#[test]
fn instruction_sets_and_thread_counts_give_the_same_bits() {
    for problem in problems() {
        for dtype in [F32, Bf16] {
            let inputs = Inputs::random(&problem, dtype, 7);
            let d_o = numbers(problem.sizes()[3], dtype, 8);
            for class in classes(dtype) {
                let expected = run(&problem, &inputs, &d_o, dtype, class[0], 1);
                for isa in class {
                    for threads in [1, 3] {
                        let actual = run(&problem, &inputs, &d_o, dtype, isa, threads);
                        let what = format!("{:?} {isa} {threads} threads", problem.lengths);
                        assert!(actual == expected, "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_sequence_has_the_same_gradients_alone_and_between_others() {
    let batch = Problem::new(&[70, 131, 9], 2, 32, 16, 32);
    let alone = Problem::new(&[131], 2, 32, 16, 32);
    for dtype in [F32, Bf16] {
        let inputs = Inputs::random(&batch, dtype, 3);
        let d_o = numbers(batch.sizes()[3], dtype, 4);
        let part = |values: &[f64]| batch.part(values, 70..201);
        let own = inputs.of_tokens(&batch, 70..201);
        let in_batch = run(&batch, &inputs, &d_o, dtype, Isa::detect(), 2);
        let by_itself = run(&alone, &own, &part(&d_o), dtype, Isa::detect(), 1);
        for (batched, single) in in_batch.iter().zip(&by_itself) {
            assert_eq!(part(batched), *single);
        }
    }
}
