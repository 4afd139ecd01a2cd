//! What is multiplied: slices that begin at a line of the cache, and operands in an arena for ops by name.

use minke_kernels::args::{Args, Ledger, Memory};
use minke_kernels::ops::{Ctx, table};

/// A copy that begins at a multiple of 64 bytes, as everything in an arena does: (buffer, first element).
pub fn aligned<T: Copy + Default>(values: &[T]) -> (Vec<T>, usize) {
    let spare = 64 / size_of::<T>();
    let mut buffer = vec![T::default(); values.len() + spare];
    let start = buffer.as_ptr().align_offset(64);
    buffer[start..start + values.len()].copy_from_slice(values);
    (buffer, start)
}

pub fn noise(len: usize) -> Vec<f32> {
    (0..len)
        .map(|i| ((i * 7919) % 2003) as f32 / 1001.5 - 1.0)
        .collect()
}

pub fn to_bf16(x: &[f32]) -> Vec<u16> {
    x.iter().map(|v| minke_kernels::bf16::from_f32(*v)).collect()
}

pub const F32: (f64, usize) = (0.0, 4);
pub const BF16: (f64, usize) = (1.0, 2);
pub const F8: (f64, usize) = (2.0, 1);
const I32: (f64, usize) = (3.0, 4);
pub const ABSENT: [f64; 2] = [-1.0, 0.0];

/// Operands in one memory, and ops of the table over them.
pub struct Arena {
    bytes: Vec<u64>,
    used: usize,
}

impl Arena {
    /// Room for so many bytes of operands, all 0.
    pub fn zeros(bytes: usize) -> Arena {
        Arena {
            bytes: vec![0; bytes / 8 + 128],
            used: 0,
        }
    }

    /// The same pattern of small numbers in every format: codes 0x24 to 0x3b, as bf16 and as halves of an f32
    /// numbers of that size, too.
    pub fn small_numbers(bytes: usize) -> Arena {
        let byte = |i: usize| (0x24 + (i * 7919 % 2003) % 24) as u64;
        let mut arena = Arena::zeros(bytes);
        for (i, word) in arena.bytes.iter_mut().enumerate() {
            *word = (0..8).fold(0, |word, b| word << 8 | byte(8 * i + b));
        }
        arena
    }

    fn base(&self) -> *mut u8 {
        (self.bytes.as_ptr() as usize).next_multiple_of(64) as *mut u8
    }

    /// `len` numbers of a dtype: its code and bytes.
    pub fn place(&mut self, len: usize, (dtype, bytes): (f64, usize)) -> [f64; 2] {
        let at = self.used;
        self.used = (at + len * bytes).next_multiple_of(64);
        assert!(self.used + 64 <= self.bytes.len() * 8, "an arena of that size");
        [at as f64, dtype]
    }

    pub fn put_i32(&mut self, values: impl ExactSizeIterator<Item = usize>) -> [f64; 2] {
        let operand = self.place(values.len(), I32);
        for (i, value) in values.enumerate() {
            // SAFETY: `place` reserved it.
            unsafe {
                self.base()
                    .add(operand[0] as usize)
                    .cast::<i32>()
                    .add(i)
                    .write(value as i32)
            };
        }
        operand
    }

    pub fn run(&self, ctx: &Ctx, name: &str, operands: &[[f64; 2]], numbers: &[usize]) {
        let numbers = numbers.iter().map(|number| *number as f64);
        let words: Vec<f64> = operands.iter().flatten().copied().chain(numbers).collect();
        // SAFETY: the bytes are ours, and one op at a time has them.
        let memory = unsafe { Memory::from_raw(self.base(), self.bytes.len() * 8 - 64) };
        let table = table();
        let (_, kernel) = table.iter().find(|(op, _)| *op == name).expect("the op");
        kernel(ctx, &mut Args::new(&memory, &words, &Ledger::default())).expect("a legal command");
    }
}
