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

use std::cell::RefCell;
use std::marker::PhantomData;

use crate::error::KernelError;

/// How an operand's numbers are stored; the codes are those on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    F32,
    Bf16,
    F8E4m3,
    I32,
}

impl Dtype {
    pub fn from_code(code: f64) -> Option<Dtype> {
        match code {
            0.0 => Some(Dtype::F32),
            1.0 => Some(Dtype::Bf16),
            2.0 => Some(Dtype::F8E4m3),
            3.0 => Some(Dtype::I32),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
            Dtype::F8E4m3 => "f8e4m3",
            Dtype::I32 => "i32",
        }
    }

    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 | Dtype::I32 => 4,
            Dtype::Bf16 => 2,
            Dtype::F8E4m3 => 1,
        }
    }
}

/// Floats to read; `u16` holds bf16 bits.
#[derive(Clone, Copy)]
pub enum Floats<'a> {
    F32(&'a [f32]),
    Bf16(&'a [u16]),
}

/// Floats to write; `u16` holds bf16 bits.
pub enum FloatsMut<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [u16]),
}

impl<'a> Floats<'a> {
    pub fn len(&self) -> usize {
        match self {
            Floats::F32(x) => x.len(),
            Floats::Bf16(x) => x.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements `start..start + len`.
    #[inline]
    pub fn range(&self, start: usize, len: usize) -> Floats<'a> {
        match self {
            Floats::F32(x) => Floats::F32(&x[start..start + len]),
            Floats::Bf16(x) => Floats::Bf16(&x[start..start + len]),
        }
    }
}

impl FloatsMut<'_> {
    pub fn len(&self) -> usize {
        match self {
            FloatsMut::F32(x) => x.len(),
            FloatsMut::Bf16(x) => x.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Runs one expression for either storage type: `with_floats!(x, |x| body)`, where `x` is a slice of `f32` or `u16`.
#[macro_export]
macro_rules! with_floats {
    ($value:expr, |$name:ident| $body:expr) => {
        match $value {
            $crate::args::Floats::F32($name) => $body,
            $crate::args::Floats::Bf16($name) => $body,
        }
    };
}

/// As `with_floats!`, for outputs.
#[macro_export]
macro_rules! with_floats_mut {
    ($value:expr, |$name:ident| $body:expr) => {
        match $value {
            $crate::args::FloatsMut::F32($name) => $body,
            $crate::args::FloatsMut::Bf16($name) => $body,
        }
    };
}

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
        if !(address >= 0.0 && address <= limit && address % dtype.bytes() as f64 == 0.0) {
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

/// An operand whose length is not known yet.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    name: &'static str,
    address: usize,
    dtype: Dtype,
    memory: &'a Memory<'a>,
    touched: &'a RefCell<Vec<Touched>>,
}

impl<'a> Operand<'a> {
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// True if both begin at the same address: an op that may run in place asks this.
    pub fn aliases(&self, other: &Operand) -> bool {
        self.address == other.address
    }

    fn error(&self, message: String) -> KernelError {
        KernelError::new(self.name, message)
    }

    fn checked(&self, len: usize, dtype: Dtype, written: bool) -> Result<*mut u8, KernelError> {
        if self.dtype != dtype {
            return Err(self.error(format!("is {}, not {}", self.dtype.name(), dtype.name())));
        }
        let end = len
            .checked_mul(dtype.bytes())
            .and_then(|bytes| self.address.checked_add(bytes))
            .filter(|end| *end <= self.memory.size)
            .ok_or_else(|| {
                self.error(format!(
                    "{len} numbers of {} at address {} do not fit an arena of {} bytes",
                    dtype.name(),
                    self.address,
                    self.memory.size
                ))
            })?;
        if cfg!(debug_assertions) {
            self.refuse_partial_overlap(end, written)?;
        }
        // SAFETY: address <= end <= size.
        Ok(unsafe { self.memory.base.add(self.address) })
    }

    fn refuse_partial_overlap(&self, end: usize, written: bool) -> Result<(), KernelError> {
        let mut touched = self.touched.borrow_mut();
        for &(name, start, stop, was_written) in touched.iter() {
            let same_start = start == self.address;
            if (written || was_written) && !same_start && start < end && self.address < stop {
                return Err(self.error(format!(
                    "bytes {}..{end} overlap operand {name} at {start}..{stop}",
                    self.address
                )));
            }
        }
        touched.push((self.name, self.address, end, written));
        Ok(())
    }

    /// `len` floats to read.
    pub fn slice(&self, len: usize) -> Result<Floats<'a>, KernelError> {
        match self.dtype {
            Dtype::Bf16 => {
                let start = self.checked(len, Dtype::Bf16, false)?;
                // SAFETY: checked; addresses are multiples of the element's size from a base aligned to 64.
                Ok(Floats::Bf16(unsafe {
                    std::slice::from_raw_parts(start.cast(), len)
                }))
            }
            _ => self.f32s(len).map(Floats::F32),
        }
    }

    /// `len` floats to write. Do not also hold a slice of an operand that `aliases` this one.
    pub fn slice_mut(&self, len: usize) -> Result<FloatsMut<'a>, KernelError> {
        match self.dtype {
            Dtype::Bf16 => {
                let start = self.checked(len, Dtype::Bf16, true)?;
                // SAFETY: checked; the kernel keeps to one slice per operand.
                Ok(FloatsMut::Bf16(unsafe {
                    std::slice::from_raw_parts_mut(start.cast(), len)
                }))
            }
            _ => self.f32s_mut(len).map(FloatsMut::F32),
        }
    }

    pub fn f32s(&self, len: usize) -> Result<&'a [f32], KernelError> {
        let start = self.checked(len, Dtype::F32, false)?;
        // SAFETY: as in `slice`.
        Ok(unsafe { std::slice::from_raw_parts(start.cast(), len) })
    }

    pub fn f32s_mut(&self, len: usize) -> Result<&'a mut [f32], KernelError> {
        let start = self.checked(len, Dtype::F32, true)?;
        // SAFETY: as in `slice_mut`.
        Ok(unsafe { std::slice::from_raw_parts_mut(start.cast(), len) })
    }

    pub fn i32s(&self, len: usize) -> Result<&'a [i32], KernelError> {
        let start = self.checked(len, Dtype::I32, false)?;
        // SAFETY: as in `slice`.
        Ok(unsafe { std::slice::from_raw_parts(start.cast(), len) })
    }

    pub fn i32s_mut(&self, len: usize) -> Result<&'a mut [i32], KernelError> {
        let start = self.checked(len, Dtype::I32, true)?;
        // SAFETY: as in `slice_mut`.
        Ok(unsafe { std::slice::from_raw_parts_mut(start.cast(), len) })
    }

    /// `len` numbers of whatever dtype, as bytes to read.
    pub fn bytes(&self, len: usize) -> Result<&'a [u8], KernelError> {
        let start = self.checked(len, self.dtype, false)?;
        // SAFETY: as in `slice`.
        Ok(unsafe { std::slice::from_raw_parts(start, len * self.dtype.bytes()) })
    }

    /// `len` numbers of whatever dtype, as bytes to write.
    pub fn bytes_mut(&self, len: usize) -> Result<&'a mut [u8], KernelError> {
        let start = self.checked(len, self.dtype, true)?;
        // SAFETY: as in `slice_mut`.
        Ok(unsafe { std::slice::from_raw_parts_mut(start, len * self.dtype.bytes()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(64))]
    struct Page([u8; 1024]);

    fn decode<T>(
        words: &[f64],
        f: impl FnOnce(&mut Args) -> Result<T, KernelError>,
    ) -> Result<T, KernelError> {
        let mut page = Page([0; 1024]);
        let memory = Memory::new(&mut page.0);
        let ledger = Ledger::default();
        f(&mut Args::new(&memory, words, &ledger))
    }

    #[test]
    fn operands_then_numbers_are_read_in_order() {
        decode(&[64.0, 1.0, -1.0, 0.0, 128.0, 3.0, 7.0, 0.5], |a| {
            let x = a.floats("x")?;
            assert!(a.f32s_optional("gain")?.is_none());
            let ids = a.i32s("ids")?;
            let n = a.usize("n")?;
            assert_eq!((n, a.f32("eps")?), (7, 0.5));
            a.end()?;
            assert_eq!(x.slice(n)?.len(), 7);
            assert_eq!(ids.i32s(n)?, &[0; 7]);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn an_operand_that_ends_outside_the_arena_is_refused_by_name() {
        let end = decode(&[960.0, 0.0], |a| a.f32s("y")?.f32s_mut(17).map(|_| ())).unwrap_err();
        assert_eq!(end.param, Some("y"));
        assert!(end.message.contains("17 numbers of f32 at address 960"), "{end}");
        let huge = decode(&[0.0, 0.0], |a| a.f32s("y")?.f32s_mut(usize::MAX).map(|_| ()));
        assert!(huge.is_err());
    }

    #[test]
    fn wrong_dtypes_addresses_counts_and_lengths_of_command_are_refused() {
        assert!(decode(&[0.0, 3.0], |a| a.floats("x").map(|_| ())).is_err());
        assert!(decode(&[0.0, 9.0], |a| a.any("x").map(|_| ())).is_err());
        assert!(decode(&[-1.0, 0.0], |a| a.floats("x").map(|_| ())).is_err());
        assert!(decode(&[33.0, 0.0], |a| a.floats("x").map(|_| ())).is_err());
        assert!(decode(&[f64::NAN, 0.0], |a| a.floats("x").map(|_| ())).is_err());
        assert!(decode(&[1.5], |a| a.usize("n").map(|_| ())).is_err());
        assert!(decode(&[2.0], |a| a.flag("round").map(|_| ())).is_err());
        assert!(decode(&[], |a| a.f64("eps").map(|_| ())).is_err());
        assert!(decode(&[1.0, 2.0], |a| a.usize("n").and(a.end())).is_err());
    }

    #[test]
    fn a_shape_whose_product_would_wrap_around_is_refused() {
        assert_eq!(elements(&[3, 5, 7]).unwrap(), 105);
        assert_eq!(elements(&[0, 99]).unwrap(), 0);
        assert!(
            elements(&[1 << 40, 1 << 40])
                .unwrap_err()
                .message
                .contains("too large")
        );
    }

    #[cfg(debug_assertions)]
    #[test]
    fn operands_that_overlap_in_part_are_refused_when_one_is_written() {
        let overlap = decode(&[0.0, 0.0, 64.0, 0.0], |a| {
            let (x, y) = (a.floats("x")?, a.floats("y")?);
            x.slice(32)?;
            y.slice_mut(32).map(|_| ())
        });
        assert!(overlap.unwrap_err().message.contains("overlap operand x"));
        let both_read = decode(&[0.0, 0.0, 64.0, 0.0], |a| {
            let (x, y) = (a.floats("x")?, a.floats("y")?);
            x.slice(32)?;
            y.slice(32).map(|_| ())
        });
        assert!(both_read.is_ok());
    }
}
