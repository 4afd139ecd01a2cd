//! Runs one op of this family on every instruction set and several numbers of threads, wants the same bits of
//! all, and holds them to f64 numbers.

use crate::bf16;
use crate::error::KernelError;
use crate::isa::Isa;
use crate::optim::test_arena::{TestArena, noise};

enum Operand {
    Floats(Vec<f32>, bool),
    Ids(Vec<i32>),
    /// The memory of the first operand again, under this dtype.
    First(bool),
    Absent,
}

impl Operand {
    fn bytes(&self) -> usize {
        match self {
            Operand::Floats(values, true) => 2 * values.len(),
            Operand::Floats(values, false) => 4 * values.len(),
            Operand::Ids(values) => 4 * values.len(),
            Operand::First(_) | Operand::Absent => 0,
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Access {
    Read,
    Written,
    Scratch,
}

/// An op with its operands, in the order of the table, and its numbers.
pub struct Op {
    name: &'static str,
    operands: Vec<(Operand, Access)>,
    numbers: Vec<f64>,
}

impl Op {
    pub fn new(name: &'static str) -> Op {
        Op {
            name,
            operands: Vec::new(),
            numbers: Vec::new(),
        }
    }

    fn push(mut self, operand: Operand, access: Access) -> Op {
        self.operands.push((operand, access));
        self
    }

    pub fn given(self, values: &[f32], is_bf16: bool) -> Op {
        self.push(Operand::Floats(values.to_vec(), is_bf16), Access::Read)
    }

    pub fn ids(self, values: &[i32]) -> Op {
        self.push(Operand::Ids(values.to_vec()), Access::Read)
    }

    pub fn absent(self) -> Op {
        self.push(Operand::Absent, Access::Read)
    }

    /// An output that is added to.
    pub fn changed(self, values: &[f32], is_bf16: bool) -> Op {
        self.push(Operand::Floats(values.to_vec(), is_bf16), Access::Written)
    }

    /// An output full of garbage.
    pub fn wanted(self, len: usize, is_bf16: bool) -> Op {
        self.changed(&vec![f32::NAN; len], is_bf16)
    }

    /// An output that lies on the first operand.
    pub fn on_first(self, is_bf16: bool) -> Op {
        self.push(Operand::First(is_bf16), Access::Read)
    }

    pub fn scratch(self, len: usize) -> Op {
        self.push(Operand::Floats(vec![f32::NAN; len], false), Access::Scratch)
    }

    pub fn scratch_ids(self, len: usize) -> Op {
        self.push(Operand::Ids(vec![-1; len]), Access::Scratch)
    }

    pub fn numbers(mut self, numbers: &[f64]) -> Op {
        self.numbers = numbers.to_vec();
        self
    }

    /// The outputs, widened to f32, after a look at every byte that is not the op's to write.
    pub fn run(&self, threads: usize, isa: Isa) -> Result<Vec<Vec<f32>>, KernelError> {
        let mut arena = TestArena::new();
        let mut outputs = Vec::new();
        for (operand, access) in &self.operands {
            let at = match operand {
                Operand::Floats(values, is_bf16) => Some(arena.floats(values, *is_bf16)),
                Operand::Ids(values) => Some(arena.i32s(values)),
                Operand::First(is_bf16) => {
                    arena.numbers(&[0.0, *is_bf16 as u8 as f64]);
                    None
                }
                Operand::Absent => {
                    arena.absent();
                    None
                }
            };
            if let (Operand::Floats(values, is_bf16), Access::Written, Some(at)) = (operand, access, at) {
                outputs.push((at, values.len(), *is_bf16));
            }
        }
        arena.numbers(&self.numbers);
        let before = arena.snapshot();
        arena.run(self.name, threads, isa)?;
        self.require_untouched(&before, &arena.snapshot());
        Ok(outputs
            .into_iter()
            .map(|(at, len, is_bf16)| arena.read(at, len, is_bf16))
            .collect())
    }

    /// Inputs, gaps between operands and what lies behind them are as they were.
    fn require_untouched(&self, before: &[u8], after: &[u8]) {
        let mut start = 0;
        for (i, (operand, access)) in self.operands.iter().enumerate() {
            if matches!(operand, Operand::First(_) | Operand::Absent) {
                continue;
            }
            let end = start + operand.bytes();
            let next = (end.div_ceil(64) + 1) * 64;
            let from = if *access == Access::Read { start } else { end };
            assert_eq!(
                before[from..next],
                after[from..next],
                "{}: around operand {i}",
                self.name
            );
            start = next;
        }
    }

    fn output_dtypes(&self) -> Vec<bool> {
        let written = self
            .operands
            .iter()
            .filter(|(_, access)| *access == Access::Written);
        written
            .map(|(operand, _)| matches!(operand, Operand::Floats(_, true)))
            .collect()
    }

    /// The outputs on the best instruction set, after all others and more threads gave the same bits.
    pub fn same_everywhere(&self) -> Vec<Vec<f32>> {
        let bits = |outputs: &[Vec<f32>]| -> Vec<Vec<u32>> {
            outputs
                .iter()
                .map(|y| y.iter().map(|v| v.to_bits()).collect())
                .collect()
        };
        let expected = self.run(1, Isa::detect()).unwrap();
        for isa in Isa::usable() {
            for threads in [1, 3] {
                let outputs = self.run(threads, isa).unwrap();
                assert_eq!(
                    bits(&outputs),
                    bits(&expected),
                    "{}: {isa}, {threads} threads",
                    self.name
                );
            }
        }
        expected
    }

    /// Wants `same_everywhere` to lie near `expected`, output by output: a few units of the storage dtype.
    pub fn check(&self, expected: &[Vec<f64>]) {
        let outputs = self.same_everywhere();
        assert_eq!(outputs.len(), expected.len());
        for (i, (actual, expected)) in outputs.iter().zip(expected).enumerate() {
            let limit = if self.output_dtypes()[i] { 4e-3 } else { 2e-6 };
            let error = distance(actual, expected);
            assert!(error <= limit, "{}: output {i} is off by {error:e}", self.name);
        }
    }

    /// The refusal of a wrong command.
    pub fn refusal(&self) -> KernelError {
        self.run(1, Isa::detect())
            .expect_err("the op takes what it should refuse")
    }
}

/// Relative Frobenius distance.
pub fn distance(actual: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(actual.len(), expected.len());
    let norm: f64 = expected.iter().map(|e| e * e).sum();
    let error: f64 = actual
        .iter()
        .zip(expected)
        .map(|(a, e)| (*a as f64 - e).powi(2))
        .sum();
    if error == 0.0 { 0.0 } else { (error / norm).sqrt() }
}

/// Numbers between -2 and 2 that bf16 holds exactly, so that either storage dtype means the same.
pub fn numbers(len: usize, seed: u64) -> Vec<f32> {
    noise(len, seed).iter().map(|v| bf16::round(2.0 * v)).collect()
}

pub fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| *v as f64).collect()
}

/// Every choice of storage dtype for `n` operands.
pub fn dtypes(n: usize) -> impl Iterator<Item = Vec<bool>> {
    (0..1 << n).map(move |bits: usize| (0..n).map(|i| bits >> i & 1 == 1).collect())
}

/// cos and sin of `p` positions and `half` pairs.
pub fn table(p: usize, half: usize) -> (Vec<f32>, Vec<f32>) {
    let angle = |i: usize| (i / half) as f64 * 50f64.powf(-((i % half) as f64) / half as f64);
    let cos = (0..p * half).map(|i| angle(i).cos() as f32).collect();
    let sin = (0..p * half).map(|i| angle(i).sin() as f32).collect();
    (cos, sin)
}

/// RMSNorm of one row in f64: the normed row and 1 / rms.
pub fn norm_row(s: &[f64], gain: &[f32], eps: f64) -> (Vec<f64>, f64) {
    let r = 1.0 / (s.iter().map(|v| v * v).sum::<f64>() / s.len() as f64 + eps).sqrt();
    (s.iter().zip(gain).map(|(v, g)| v * r * *g as f64).collect(), r)
}

/// Gradient of one row, by its Jacobian: dy_j / ds_i = g_j r ([i = j] - s_i s_j r^2 / D).
pub fn norm_row_grad(dy: &[f32], s: &[f32], gain: &[f32], r: f32, dgain: &mut [f64]) -> Vec<f64> {
    let (d, r) = (s.len(), r as f64);
    for i in 0..d {
        dgain[i] += dy[i] as f64 * s[i] as f64 * r;
    }
    let shared: f64 = (0..d).map(|j| dy[j] as f64 * gain[j] as f64 * s[j] as f64).sum();
    (0..d)
        .map(|i| r * dy[i] as f64 * gain[i] as f64 - r.powi(3) * s[i] as f64 * shared / d as f64)
        .collect()
}

/// The pairs of one vector turned by the table's angles times `direction`.
pub fn turned(x: &[f32], cos: &[f32], sin: &[f32], direction: f64) -> Vec<f64> {
    let at = |i: usize| x[i] as f64;
    (0..x.len())
        .map(|i| {
            let (c, s) = (cos[i / 2] as f64, sin[i / 2] as f64 * direction);
            if i % 2 == 0 {
                at(i) * c - at(i + 1) * s
            } else {
                at(i) * c + at(i - 1) * s
            }
        })
        .collect()
}
