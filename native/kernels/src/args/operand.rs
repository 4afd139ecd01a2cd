//! One operand: an address that becomes a slice once its length is known, and is checked then.

use std::cell::RefCell;

use super::{Dtype, Floats, FloatsMut, Memory, Touched};
use crate::error::KernelError;

/// An operand whose length is not known yet.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    pub(super) name: &'static str,
    pub(super) address: usize,
    pub(super) dtype: Dtype,
    pub(super) memory: &'a Memory<'a>,
    pub(super) touched: &'a RefCell<Vec<Touched>>,
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
        let end = dtype
            .bytes(len)
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
        let bytes = self.dtype.bytes(len).unwrap_or(0);
        // SAFETY: as in `slice`; a length that wraps was refused.
        Ok(unsafe { std::slice::from_raw_parts(start, bytes) })
    }

    /// `len` numbers of whatever dtype, as bytes to write.
    pub fn bytes_mut(&self, len: usize) -> Result<&'a mut [u8], KernelError> {
        let start = self.checked(len, self.dtype, true)?;
        let bytes = self.dtype.bytes(len).unwrap_or(0);
        // SAFETY: as in `slice_mut`; a length that wraps was refused.
        Ok(unsafe { std::slice::from_raw_parts_mut(start, bytes) })
    }
}
