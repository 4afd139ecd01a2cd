//! The GEMM family against f64 loops, against itself on other instruction sets, threads and batches.

mod gradients;
mod grouped;
mod products;

use gradients::grad_weight;

use crate::args::{Args, Ledger, Memory};
use crate::bf16;
use crate::error::KernelError;
use crate::isa::Isa;
use crate::ops::{Ctx, table};
use crate::pool::Pool;

pub(in crate::gemm) const F32: f64 = 0.0;
pub(in crate::gemm) const BF16: f64 = 1.0;
const F8: f64 = 2.0;
const I32: f64 = 3.0;

/// A little arena whose every byte is a NaN until something is placed, so that reading padding shows.
pub(in crate::gemm) struct Bench {
    bytes: Vec<u64>,
    used: usize,
    isa: Isa,
    pool: Pool,
}

impl Bench {
    pub(in crate::gemm) fn new(isa: Isa, threads: usize) -> Bench {
        Bench::of(4 << 20, isa, threads)
    }

    /// Of so many words of eight bytes.
    pub(in crate::gemm) fn of(words: usize, isa: Isa, threads: usize) -> Bench {
        Bench {
            bytes: vec![u64::MAX; words],
            used: 0,
            isa,
            pool: Pool::new(threads),
        }
    }

    pub(in crate::gemm) fn base(&self) -> usize {
        (self.bytes.as_ptr() as usize).next_multiple_of(64)
    }

    /// Reserves room and a NaN gap behind it.
    pub(in crate::gemm) fn room(&mut self, bytes: usize) -> f64 {
        let address = self.used;
        self.used = (address + bytes + 64).next_multiple_of(64);
        assert!(self.used + 64 <= self.bytes.len() * 8);
        address as f64
    }

    pub(in crate::gemm) fn put(&mut self, values: &[f32], dtype: f64) -> [f64; 2] {
        let size = if dtype == BF16 { 2 } else { 4 };
        let address = self.room(values.len() * size);
        let start = (self.base() + address as usize) as *mut u8;
        for (i, value) in values.iter().enumerate() {
            // SAFETY: `room` reserved it.
            unsafe {
                if dtype == BF16 {
                    start.cast::<u16>().add(i).write(bf16::from_f32(*value));
                } else {
                    start.cast::<f32>().add(i).write(*value);
                }
            }
        }
        [address, dtype]
    }

    pub(in crate::gemm) fn put_codes(&mut self, codes: &[u8]) -> [f64; 2] {
        let address = self.room(codes.len());
        let start = (self.base() + address as usize) as *mut u8;
        // SAFETY: `room` reserved it.
        unsafe { std::ptr::copy_nonoverlapping(codes.as_ptr(), start, codes.len()) };
        [address, F8]
    }

    pub(in crate::gemm) fn put_i32(&mut self, values: &[i32]) -> [f64; 2] {
        let address = self.room(values.len() * 4);
        let start = (self.base() + address as usize) as *mut i32;
        for (i, value) in values.iter().enumerate() {
            // SAFETY: `room` reserved it.
            unsafe { start.add(i).write(*value) };
        }
        [address, I32]
    }

    pub(in crate::gemm) fn garbage(&mut self, len: usize, dtype: f64) -> [f64; 2] {
        [self.room(len * 4), dtype]
    }

    pub(in crate::gemm) fn get(&self, operand: [f64; 2], len: usize) -> Vec<f32> {
        let start = (self.base() + operand[0] as usize) as *const u8;
        (0..len)
            .map(|i| unsafe {
                if operand[1] == BF16 {
                    bf16::to_f32(*start.cast::<u16>().add(i))
                } else {
                    *start.cast::<f32>().add(i)
                }
            })
            .collect()
    }

    pub(in crate::gemm) fn run(
        &self,
        name: &str,
        operands: &[[f64; 2]],
        numbers: &[usize],
    ) -> Result<(), KernelError> {
        let words: Vec<f64> = operands
            .iter()
            .flatten()
            .copied()
            .chain(numbers.iter().map(|n| *n as f64))
            .collect();
        let table = table();
        let (_, kernel) = table.iter().find(|(op, _)| *op == name).expect(name);
        let ctx = Ctx::new(&self.pool, self.isa);
        // SAFETY: the bytes are ours, and only the kernel touches them while it runs.
        let memory = unsafe { Memory::from_raw(self.base() as *mut u8, self.bytes.len() * 8 - 64) };
        kernel(&ctx, &mut Args::new(&memory, &words, &Ledger::default()))
    }

    pub(in crate::gemm) fn packed(
        &mut self,
        w: &[f32],
        (b, n, k): (usize, usize, usize),
        dtype: f64,
    ) -> [f64; 2] {
        let master = self.put(w, F32);
        let panels = self.garbage(b * super::panels_len(n, k), dtype);
        self.run("packWeight", &[master, panels, ABSENT], &[b, n, k])
            .unwrap();
        panels
    }
}

pub(in crate::gemm) const ABSENT: [f64; 2] = [-1.0, 0.0];

fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn stored(x: &[f32], dtype: f64) -> Vec<f32> {
    x.iter()
        .map(|v| if dtype == BF16 { bf16::round(*v) } else { *v })
        .collect()
}

/// y = x @ w^T in f64.
fn product_f64(x: &[f32], w: &[f32], (m, n, k): (usize, usize, usize)) -> Vec<f64> {
    let mut y = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            y[i * n + j] = (0..k).map(|c| x[i * k + c] as f64 * w[j * k + c] as f64).sum();
        }
    }
    y
}

fn assert_near(actual: &[f32], exact: &[f64], tolerance: f64, what: &str) {
    assert_eq!(actual.len(), exact.len());
    let scale = exact.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-30);
    let error = actual
        .iter()
        .zip(exact)
        .map(|(a, e)| (*a as f64 - e).powi(2))
        .sum::<f64>()
        .sqrt();
    assert!(
        error / scale < tolerance,
        "{what}: relative error {:e}",
        error / scale
    );
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// matmul of given storage, on given hardware; returns y and the stored operands.
fn matmul(
    isa: Isa,
    threads: usize,
    (m, n, k): (usize, usize, usize),
    [x_dtype, panel_dtype, y_dtype]: [f64; 3],
    x: &[f32],
) -> Vec<f32> {
    let mut bench = Bench::new(isa, threads);
    let w = noise(n * k, 2);
    let x = bench.put(x, x_dtype);
    let panels = bench.packed(&w, (1, n, k), panel_dtype);
    let y = bench.garbage(m * n, y_dtype);
    bench.run("matmul", &[x, panels, ABSENT, y], &[m, n, k]).unwrap();
    bench.get(y, m * n)
}
