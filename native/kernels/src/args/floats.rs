//! How numbers are stored, and slices of either float.

/// How an operand's numbers are stored; the codes are those on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    F32,
    Bf16,
    F8E4m3,
    I32,
    /// Twelve bits: two numbers in three bytes.
    E5m6,
}

impl Dtype {
    pub fn from_code(code: f64) -> Option<Dtype> {
        match code {
            0.0 => Some(Dtype::F32),
            1.0 => Some(Dtype::Bf16),
            2.0 => Some(Dtype::F8E4m3),
            3.0 => Some(Dtype::I32),
            5.0 => Some(Dtype::E5m6),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
            Dtype::F8E4m3 => "f8e4m3",
            Dtype::I32 => "i32",
            Dtype::E5m6 => "e5m6",
        }
    }

    /// Bytes of `len` numbers; none if no address could say so.
    pub fn bytes(self, len: usize) -> Option<usize> {
        match self {
            Dtype::F32 | Dtype::I32 => len.checked_mul(4),
            Dtype::Bf16 => len.checked_mul(2),
            Dtype::F8E4m3 => Some(len),
            Dtype::E5m6 => len.checked_mul(3).map(|half_bytes| half_bytes.div_ceil(2)),
        }
    }

    /// Addresses are multiples of this.
    pub fn alignment(self) -> usize {
        match self {
            Dtype::F32 | Dtype::I32 => 4,
            Dtype::Bf16 => 2,
            Dtype::F8E4m3 | Dtype::E5m6 => 1,
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
