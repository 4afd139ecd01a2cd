//! Attention in f64 loops straight from the equations, and a small arena to run commands in: for tests.

use std::ops::Range;

use crate::args::{Args, Dtype, Ledger, Memory};
use crate::bf16;
use crate::error::KernelError;
use crate::isa::Isa;
use crate::ops::{Ctx, Kernel};
use crate::pool::Pool;

/// Packed sequences and heads of one test.
#[derive(Clone)]
pub struct Problem {
    pub lengths: Vec<usize>,
    pub heads: usize,
    pub nope: usize,
    pub rope: usize,
    pub value: usize,
    pub scale: f64,
}

impl Problem {
    pub fn new(lengths: &[usize], heads: usize, nope: usize, rope: usize, value: usize) -> Problem {
        let scale = 1.0 / ((nope + rope) as f64).sqrt();
        Problem {
            lengths: lengths.to_vec(),
            heads,
            nope,
            rope,
            value,
            scale,
        }
    }

    pub fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// What belongs to some tokens, of values that lie token by token.
    pub fn part(&self, values: &[f64], tokens: Range<usize>) -> Vec<f64> {
        let width = values.len() / self.tokens();
        values[tokens.start * width..tokens.end * width].to_vec()
    }

    pub fn offsets(&self) -> Vec<f64> {
        let mut offsets = vec![0.0];
        for length in &self.lengths {
            offsets.push(offsets[offsets.len() - 1] + *length as f64);
        }
        offsets
    }

    /// The table's numbers.
    pub fn params(&self) -> Vec<f64> {
        let Problem {
            heads,
            nope,
            rope,
            value,
            ..
        } = *self;
        let counts = [self.tokens(), heads, nope, rope, value, self.lengths.len()];
        counts.iter().map(|n| *n as f64).chain([self.scale]).collect()
    }

    /// [T, H, N + R], [T, H, N + V], [T, R], [T, H, V]: sizes of q, kv, kRope and o.
    pub fn sizes(&self) -> [usize; 4] {
        let (tokens, heads) = (self.tokens(), self.heads);
        [
            tokens * heads * (self.nope + self.rope),
            tokens * heads * (self.nope + self.value),
            tokens * self.rope,
            tokens * heads * self.value,
        ]
    }

    /// Every (query, key) that meet, head by head, with the sequence's order kept.
    fn pairs(&self) -> Vec<(usize, usize, usize)> {
        let mut pairs = Vec::new();
        for head in 0..self.heads {
            let mut start = 0;
            for &length in &self.lengths {
                for i in 0..length {
                    pairs.extend((0..=i).map(|j| (head, start + i, start + j)));
                }
                start += length;
            }
        }
        pairs
    }

    fn q_at(&self, token: usize, head: usize) -> usize {
        (token * self.heads + head) * (self.nope + self.rope)
    }

    fn kv_at(&self, token: usize, head: usize) -> usize {
        (token * self.heads + head) * (self.nope + self.value)
    }

    fn score(&self, inputs: &Inputs, head: usize, i: usize, j: usize) -> f64 {
        let (q, k) = (self.q_at(i, head), self.kv_at(j, head));
        let nope: f64 = (0..self.nope).map(|n| inputs.q[q + n] * inputs.kv[k + n]).sum();
        let rope: f64 = (0..self.rope)
            .map(|r| inputs.q[q + self.nope + r] * inputs.k_rope[j * self.rope + r])
            .sum();
        (nope + rope) * self.scale
    }

    /// o and lse.
    pub fn forward(&self, inputs: &Inputs) -> (Vec<f64>, Vec<f64>) {
        let tokens = self.tokens();
        let mut sums = vec![0.0; self.heads * tokens];
        let mut o = vec![0.0; self.sizes()[3]];
        for (head, i, j) in self.pairs() {
            let weight = self.score(inputs, head, i, j).exp();
            sums[head * tokens + i] += weight;
            for v in 0..self.value {
                let value = inputs.kv[self.kv_at(j, head) + self.nope + v];
                o[(i * self.heads + head) * self.value + v] += weight * value;
            }
        }
        for i in 0..tokens {
            for head in 0..self.heads {
                for v in 0..self.value {
                    o[(i * self.heads + head) * self.value + v] /= sums[head * tokens + i];
                }
            }
        }
        (o, sums.iter().map(|sum| sum.ln()).collect())
    }

    /// dq, dkv and dkRope.
    pub fn backward(&self, inputs: &Inputs, d_o: &[f64]) -> [Vec<f64>; 3] {
        let (o, lse) = self.forward(inputs);
        let [q_size, kv_size, rope_size, _] = self.sizes();
        let (mut dq, mut dkv, mut dk_rope) = (vec![0.0; q_size], vec![0.0; kv_size], vec![0.0; rope_size]);
        for (head, i, j) in self.pairs() {
            let p = (self.score(inputs, head, i, j) - lse[head * self.tokens() + i]).exp();
            let at = (i * self.heads + head) * self.value;
            let (q, k) = (self.q_at(i, head), self.kv_at(j, head));
            let mut ds = 0.0;
            for v in 0..self.value {
                ds += d_o[at + v] * (inputs.kv[k + self.nope + v] - o[at + v]);
                dkv[k + self.nope + v] += p * d_o[at + v];
            }
            ds *= p * self.scale;
            for n in 0..self.nope {
                dq[q + n] += ds * inputs.kv[k + n];
                dkv[k + n] += ds * inputs.q[q + n];
            }
            for r in 0..self.rope {
                dq[q + self.nope + r] += ds * inputs.k_rope[j * self.rope + r];
                dk_rope[j * self.rope + r] += ds * inputs.q[q + self.nope + r];
            }
        }
        [dq, dkv, dk_rope]
    }
}

/// What attention reads, as doubles that f32 (or bf16) holds exactly.
pub struct Inputs {
    pub q: Vec<f64>,
    pub kv: Vec<f64>,
    pub k_rope: Vec<f64>,
}

impl Inputs {
    pub fn random(problem: &Problem, dtype: Dtype, seed: u64) -> Inputs {
        let [q, kv, k_rope, _] = problem.sizes();
        Inputs {
            q: numbers(q, dtype, seed),
            kv: numbers(kv, dtype, seed + 1),
            k_rope: numbers(k_rope, dtype, seed + 2),
        }
    }

    /// Those of tokens `tokens` of `problem`.
    pub fn of_tokens(&self, problem: &Problem, tokens: Range<usize>) -> Inputs {
        let part = |values: &[f64]| problem.part(values, tokens.clone());
        Inputs {
            q: part(&self.q),
            kv: part(&self.kv),
            k_rope: part(&self.k_rope),
        }
    }
}

/// Keys and values made from latents: the last tokens' queries stand at the end, zeros before them.
pub fn latent_inputs(
    problem: &Problem,
    q: &[f64],
    kv_b: &[f64],
    latents: &[f64],
    k_rope: &[f64],
    latent: usize,
) -> Inputs {
    let [q_size, kv_size, rope_size, _] = problem.sizes();
    let width = kv_size / problem.tokens();
    let mut all_q = vec![0.0; q_size - q.len()];
    all_q.extend(q);
    let kv = (0..kv_size)
        .map(|i| {
            let (token, channel) = (i / width, i % width);
            (0..latent)
                .map(|c| kv_b[channel * latent + c] * latents[token * latent + c])
                .sum()
        })
        .collect();
    Inputs {
        q: all_q,
        kv,
        k_rope: k_rope[..rope_size].to_vec(),
    }
}

/// About normal numbers that the dtype holds exactly.
pub fn numbers(count: usize, dtype: Dtype, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    (0..count)
        .map(|_| {
            let value = ((0..6).map(|_| uniform()).sum::<f64>() - 3.0) * std::f64::consts::SQRT_2;
            if dtype == Dtype::Bf16 {
                bf16::round(value as f32) as f64
            } else {
                value as f32 as f64
            }
        })
        .collect()
}

#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

/// Operands one after another, in the order of the table, and the numbers behind them.
pub struct Command {
    lines: Vec<Line>,
    words: Vec<f64>,
    operands: Vec<(usize, usize, Dtype)>,
}

impl Command {
    pub fn new() -> Command {
        Command {
            lines: Vec::new(),
            words: Vec::new(),
            operands: Vec::new(),
        }
    }

    /// Appends an operand that holds `values`.
    pub fn operand(&mut self, values: &[f64], dtype: Dtype) -> &mut Command {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|&value| match dtype {
                Dtype::F32 => (value as f32).to_le_bytes().to_vec(),
                Dtype::I32 => (value as i32).to_le_bytes().to_vec(),
                _ => bf16::from_f32(value as f32).to_le_bytes().to_vec(),
            })
            .collect();
        let address = self.lines.len() * 64;
        for chunk in bytes.chunks(64) {
            let mut line = Line([0; 64]);
            line.0[..chunk.len()].copy_from_slice(chunk);
            self.lines.push(line);
        }
        let code = match dtype {
            Dtype::F32 => 0.0,
            Dtype::I32 => 3.0,
            _ => 1.0,
        };
        self.words.extend([address as f64, code]);
        self.operands.push((address, values.len(), dtype));
        self
    }

    /// Appends an output full of garbage.
    pub fn output(&mut self, count: usize, dtype: Dtype) -> &mut Command {
        self.operand(&vec![12345.0; count], dtype)
    }

    pub fn params(&mut self, params: &[f64]) -> &mut Command {
        self.words.extend(params);
        self
    }

    pub fn run(&mut self, kernel: Kernel, isa: Isa, threads: usize) -> Result<(), KernelError> {
        let pool = Pool::new(threads);
        let ctx = Ctx::new(&pool, isa);
        let len = self.lines.len() * 64;
        // SAFETY: lines are plain bytes, borrowed for the run.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast::<u8>(), len) };
        let memory = Memory::new(bytes);
        let ledger = Ledger::default();
        kernel(&ctx, &mut Args::new(&memory, &self.words, &ledger))
    }

    /// The numbers of an operand, in the order of the table.
    pub fn read(&self, operand: usize) -> Vec<f64> {
        let (address, count, dtype) = self.operands[operand];
        let bytes: Vec<u8> = self.lines[address / 64..]
            .iter()
            .flat_map(|line| line.0)
            .collect();
        let width = dtype.alignment();
        bytes[..count * width]
            .chunks(width)
            .map(|b| match dtype {
                Dtype::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f64,
                Dtype::I32 => i32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f64,
                _ => bf16::to_f32(u16::from_le_bytes([b[0], b[1]])) as f64,
            })
            .collect()
    }
}

/// The usable instruction sets in classes of equal bits: bf16 in AMX registers is one of its own.
pub fn classes(dtype: Dtype) -> Vec<Vec<Isa>> {
    if dtype == Dtype::F32 {
        return vec![Isa::usable()];
    }
    let (own, common) = Isa::usable().into_iter().partition(|isa| *isa == Isa::Amx);
    [common, own]
        .into_iter()
        .filter(|class: &Vec<Isa>| !class.is_empty())
        .collect()
}

/// Panics unless the relative Frobenius error is at most `bound`.
pub fn assert_close(actual: &[f64], expected: &[f64], bound: f64, what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    let error: f64 = actual.iter().zip(expected).map(|(a, e)| (a - e) * (a - e)).sum();
    let norm: f64 = expected.iter().map(|e| e * e).sum();
    let relative = error.sqrt() / norm.sqrt().max(1e-300);
    assert!(
        relative <= bound || error == 0.0,
        "{what}: relative error {relative:e}"
    );
}

/// Largest relative error allowed for what is stored as `dtype`.
pub fn bound(dtype: Dtype) -> f64 {
    if dtype == Dtype::Bf16 { 3e-3 } else { 1e-6 }
}
