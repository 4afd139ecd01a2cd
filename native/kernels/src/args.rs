//! Decodes one command. Operands come first, then numbers, both in the order of the table of ops; lengths
//! depend on the numbers, so an operand is taken raw and becomes a checked slice later:
//!
//! ```text
//! let x = a.floats("x")?;
//! let y = a.floats("y")?;
//! let n = a.usize("n")?;
//! a.end()?;
//! let (x, y) = (x.slice(n)?, y.slice_mut(n)?);
//! ```
//!
//! Every slice is checked against the arena's size and its alignment. Debug builds also refuse two operands
//! that overlap in part, one of them written; operands with the same address are left to the kernel,
//! because some ops may run in place.

mod floats;
mod operand;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::marker::PhantomData;

pub use floats::{Dtype, Floats, FloatsMut};
pub use operand::Operand;

use crate::error::KernelError;

/// The memory that commands may touch.
pub struct Memory<'a> {
    base: *mut u8,
    size: usize,
    lifetime: PhantomData<&'a mut [u8]>,
}

impl<'a> Memory<'a> {
    pub fn new(bytes: &'a mut [u8]) -> Memory<'a> {
        Memory {
            base: bytes.as_mut_ptr(),
            size: bytes.len(),
            lifetime: PhantomData,
        }
    }

    /// # Safety
    /// `base..base + size` is readable and writable for `'a`, and nothing else reaches it meanwhile.
    pub unsafe fn from_raw(base: *mut u8, size: usize) -> Memory<'a> {
        Memory {
            base,
            size,
            lifetime: PhantomData,
        }
    }
}

/// One operand taken so far: name, byte range, written.
type Touched = (&'static str, usize, usize, bool);

/// A command being decoded.
pub struct Args<'a> {
    memory: &'a Memory<'a>,
    words: &'a [f64],
    next: usize,
    touched: &'a RefCell<Vec<Touched>>,
}

/// What `Args` keeps beside the command: make one, lend it to `Args::new`.
#[derive(Default)]
pub struct Ledger(RefCell<Vec<Touched>>);

impl<'a> Args<'a> {
    /// `words`: for each operand its address and dtype code, then the numbers.
    pub fn new(memory: &'a Memory<'a>, words: &'a [f64], ledger: &'a Ledger) -> Args<'a> {
        ledger.0.borrow_mut().clear();
        Args {
            memory,
            words,
            next: 0,
            touched: &ledger.0,
        }
    }

    fn word(&mut self, name: &'static str) -> Result<f64, KernelError> {
        let word = self.words.get(self.next).copied().ok_or_else(|| {
            KernelError::new(
                name,
                format!("missing: the command has only {} words", self.words.len()),
            )
        })?;
        self.next += 1;
        Ok(word)
    }

    fn operand(&mut self, name: &'static str, allowed: &[Dtype]) -> Result<Option<Operand<'a>>, KernelError> {
        let address = self.word(name)?;
        let code = self.word(name)?;
        if address == -1.0 {
            return Ok(None);
        }
        let dtype = Dtype::from_code(code)
            .ok_or_else(|| KernelError::new(name, format!("unknown dtype code {code}")))?;
        if !allowed.is_empty() && !allowed.contains(&dtype) {
            let names: Vec<_> = allowed.iter().map(|d| d.name()).collect();
            let message = format!("is {}, the op takes {}", dtype.name(), names.join(" or "));
            return Err(KernelError::new(name, message));
        }
        let limit = self.memory.size as f64;
        if !(address >= 0.0 && address <= limit && address % dtype.alignment() as f64 == 0.0) {
            let message = format!(
                "address {address} is no place for {} in an arena of {} bytes",
                dtype.name(),
                self.memory.size
            );
            return Err(KernelError::new(name, message));
        }
        Ok(Some(Operand {
            name,
            address: address as usize,
            dtype,
            memory: self.memory,
            touched: self.touched,
        }))
    }

    fn required(&mut self, name: &'static str, allowed: &[Dtype]) -> Result<Operand<'a>, KernelError> {
        self.operand(name, allowed)?
            .ok_or_else(|| KernelError::new(name, "is absent, the op needs it"))
    }

    /// An f32 or bf16 operand (marked `F` in the table).
    pub fn floats(&mut self, name: &'static str) -> Result<Operand<'a>, KernelError> {
        self.required(name, &[Dtype::F32, Dtype::Bf16])
    }

    pub fn floats_optional(&mut self, name: &'static str) -> Result<Option<Operand<'a>>, KernelError> {
        self.operand(name, &[Dtype::F32, Dtype::Bf16])
    }

    /// An f32 operand.
    pub fn f32s(&mut self, name: &'static str) -> Result<Operand<'a>, KernelError> {
        self.required(name, &[Dtype::F32])
    }

    pub fn f32s_optional(&mut self, name: &'static str) -> Result<Option<Operand<'a>>, KernelError> {
        self.operand(name, &[Dtype::F32])
    }

    /// An i32 operand.
    pub fn i32s(&mut self, name: &'static str) -> Result<Operand<'a>, KernelError> {
        self.required(name, &[Dtype::I32])
    }

    pub fn i32s_optional(&mut self, name: &'static str) -> Result<Option<Operand<'a>>, KernelError> {
        self.operand(name, &[Dtype::I32])
    }

    /// An operand of one of these dtypes.
    pub fn one_of(&mut self, name: &'static str, allowed: &[Dtype]) -> Result<Operand<'a>, KernelError> {
        self.required(name, allowed)
    }

    /// Codes of a small float: f8e4m3 or e5m6.
    pub fn codes(&mut self, name: &'static str) -> Result<Operand<'a>, KernelError> {
        self.required(name, &[Dtype::F8E4m3, Dtype::E5m6])
    }

    /// E4M3 codes.
    pub fn f8s(&mut self, name: &'static str) -> Result<Operand<'a>, KernelError> {
        self.required(name, &[Dtype::F8E4m3])
    }

    pub fn f8s_optional(&mut self, name: &'static str) -> Result<Option<Operand<'a>>, KernelError> {
        self.operand(name, &[Dtype::F8E4m3])
    }

    /// An operand of any dtype.
    pub fn any(&mut self, name: &'static str) -> Result<Operand<'a>, KernelError> {
        self.required(name, &[])
    }

    /// A count or index: an integer from 0 to 2^53.
    pub fn usize(&mut self, name: &'static str) -> Result<usize, KernelError> {
        let value = self.word(name)?;
        if (0.0..=9_007_199_254_740_992.0).contains(&value) && value.fract() == 0.0 {
            Ok(value as usize)
        } else {
            Err(KernelError::new(name, format!("{value} is not a count")))
        }
    }

    /// A signed integer up to 2^53 in size.
    pub fn i64(&mut self, name: &'static str) -> Result<i64, KernelError> {
        let value = self.word(name)?;
        if value.abs() <= 9_007_199_254_740_992.0 && value.fract() == 0.0 {
            Ok(value as i64)
        } else {
            Err(KernelError::new(name, format!("{value} is not an integer")))
        }
    }

    /// A switch: 0 or 1.
    pub fn flag(&mut self, name: &'static str) -> Result<bool, KernelError> {
        match self.word(name)? {
            0.0 => Ok(false),
            1.0 => Ok(true),
            value => Err(KernelError::new(name, format!("{value} is neither 0 nor 1"))),
        }
    }

    pub fn f32(&mut self, name: &'static str) -> Result<f32, KernelError> {
        Ok(self.word(name)? as f32)
    }

    pub fn f64(&mut self, name: &'static str) -> Result<f64, KernelError> {
        self.word(name)
    }

    /// Call after the last number: a longer command than the op knows is refused before anything is written.
    pub fn end(&self) -> Result<(), KernelError> {
        if self.next == self.words.len() {
            return Ok(());
        }
        Err(KernelError::command(format!(
            "the command has {} words, the op takes {}",
            self.words.len(),
            self.next
        )))
    }
}

/// The number of elements of a shape; refuses one that no memory holds, before it wraps around.
pub fn elements(shape: &[usize]) -> Result<usize, KernelError> {
    shape
        .iter()
        .try_fold(1usize, |product, dim| product.checked_mul(*dim))
        .filter(|product| *product <= isize::MAX as usize / 8)
        .ok_or_else(|| KernelError::command(format!("a shape of {shape:?} is too large")))
}
