//! What the family's tests share: commands over a small arena, random numbers, and the demand that thread
//! counts and instruction sets change no bit.

use std::fmt::Debug;

use crate::args::{Args, Ledger, Memory};
use crate::bf16;
use crate::error::KernelError;
use crate::isa::Isa;
use crate::ops::{Ctx, Kernel};
use crate::pool::Pool;

#[derive(Clone, Copy)]
pub struct Operand {
    address: f64,
    dtype: f64,
    len: usize,
}

const F32: f64 = 0.0;
const BF16: f64 = 1.0;
const I32: f64 = 3.0;

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u8; 64]);

/// Memory for a few operands; what is handed out as garbage is not zero.
#[derive(Default)]
pub struct Arena {
    lines: Vec<Line>,
}

impl Arena {
    pub const ABSENT: Operand = Operand {
        address: -1.0,
        dtype: F32,
        len: 0,
    };

    pub fn new() -> Arena {
        Arena::default()
    }

    fn place(&mut self, bytes: &[u8], dtype: f64, len: usize) -> Operand {
        let address = self.lines.len() * 64;
        for part in bytes.chunks(64) {
            let mut line = Line([0xc7; 64]);
            line.0[..part.len()].copy_from_slice(part);
            self.lines.push(line);
        }
        Operand {
            address: address as f64,
            dtype,
            len,
        }
    }

    pub fn put(&mut self, x: &[f32]) -> Operand {
        let bytes: Vec<u8> = x.iter().flat_map(|v| v.to_ne_bytes()).collect();
        self.place(&bytes, F32, x.len())
    }

    pub fn put_bf16(&mut self, x: &[f32]) -> Operand {
        let bytes: Vec<u8> = x.iter().flat_map(|v| bf16::from_f32(*v).to_ne_bytes()).collect();
        self.place(&bytes, BF16, x.len())
    }

    pub fn put_i32(&mut self, x: &[i32]) -> Operand {
        let bytes: Vec<u8> = x.iter().flat_map(|v| v.to_ne_bytes()).collect();
        self.place(&bytes, I32, x.len())
    }

    pub fn garbage(&mut self, len: usize) -> Operand {
        self.place(&vec![0xc7; len * 4], F32, len)
    }

    pub fn garbage_bf16(&mut self, len: usize) -> Operand {
        self.place(&vec![0xc7; len * 2], BF16, len)
    }

    pub fn garbage_i32(&mut self, len: usize) -> Operand {
        self.place(&vec![0xc7; len * 4], I32, len)
    }

    pub fn run(
        &mut self,
        ctx: &Ctx,
        kernel: Kernel,
        operands: &[Operand],
        numbers: &[f64],
    ) -> Result<(), KernelError> {
        let mut words: Vec<f64> = operands.iter().flat_map(|o| [o.address, o.dtype]).collect();
        words.extend(numbers);
        let size = self.lines.len() * 64;
        // SAFETY: the lines live on, and nothing else touches them while the kernel runs.
        let memory = unsafe { Memory::from_raw(self.lines.as_mut_ptr().cast(), size) };
        let ledger = Ledger::default();
        kernel(ctx, &mut Args::new(&memory, &words, &ledger))
    }

    fn bytes(&self, operand: Operand, width: usize) -> Vec<u8> {
        let all: Vec<u8> = self.lines[operand.address as usize / 64..]
            .iter()
            .flat_map(|l| l.0)
            .collect();
        all[..operand.len * width].to_vec()
    }

    /// The numbers of an f32 or bf16 operand.
    pub fn f32s(&self, operand: Operand) -> Vec<f32> {
        if operand.dtype == BF16 {
            let bytes = self.bytes(operand, 2);
            return bytes
                .chunks_exact(2)
                .map(|b| bf16::to_f32(u16::from_ne_bytes([b[0], b[1]])))
                .collect();
        }
        let bytes = self.bytes(operand, 4);
        bytes
            .chunks_exact(4)
            .map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
            .collect()
    }

    pub fn i32s(&self, operand: Operand) -> Vec<i32> {
        let bytes = self.bytes(operand, 4);
        bytes
            .chunks_exact(4)
            .map(|b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
            .collect()
    }
}

/// Runs `f` with one, two and three threads on every instruction set of this machine; all must agree to the bit
/// (as `Debug` prints floats, which tells any two of them apart except NaNs).
pub fn same_on_all_paths<T: Debug>(mut f: impl FnMut(&Ctx) -> T) -> T {
    let pools = [1, 2, 3].map(Pool::new);
    let first = f(&Ctx::new(&pools[0], Isa::Portable));
    let expected = format!("{first:?}");
    for isa in Isa::usable() {
        for pool in &pools {
            let found = format!("{:?}", f(&Ctx::new(pool, isa)));
            assert!(
                found == expected,
                "{isa} with {} threads differs from portable with one",
                pool.threads()
            );
        }
    }
    first
}

/// Every element within `relative` of the greatest exact one.
pub fn assert_close(actual: &[f32], exact: &[f64], relative: f64) {
    assert_eq!(actual.len(), exact.len());
    let greatest = exact.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    for (i, (a, x)) in actual.iter().zip(exact).enumerate() {
        assert!(
            (*a as f64 - x).abs() <= relative * greatest,
            "element {i}: {a} is not {x}"
        );
    }
}

/// splitmix64, for test data.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// 0 to n - 1 in any order.
    pub fn shuffled(&mut self, n: usize) -> Vec<i32> {
        let mut numbers: Vec<i32> = (0..n as i32).collect();
        for i in (1..n).rev() {
            numbers.swap(i, self.below(i + 1));
        }
        numbers
    }

    /// About normal: a sum of four uniform numbers.
    pub fn normals(&mut self, n: usize, std: f32) -> Vec<f32> {
        let mut uniform = || (self.next() >> 40) as f32 / (1 << 24) as f32 - 0.5;
        (0..n)
            .map(|_| (uniform() + uniform() + uniform() + uniform()) * 1.732 * std)
            .collect()
    }
}
