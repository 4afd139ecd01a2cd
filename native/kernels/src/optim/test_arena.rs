//! What the tests of this family run ops with: operands laid out one after another, then the command.

use crate::args::{Args, Ledger, Memory};
use crate::bf16;
use crate::error::KernelError;
use crate::isa::Isa;
use crate::ops::{Ctx, Kernel, table};
use crate::pool::Pool;

#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

/// Where an operand lies.
#[derive(Clone, Copy)]
pub struct At(usize);

/// One command and its memory.
#[derive(Default)]
pub struct TestArena {
    lines: Vec<Line>,
    words: Vec<f64>,
}

impl TestArena {
    pub fn new() -> TestArena {
        TestArena::default()
    }

    fn push(&mut self, bytes: &[u8], code: f64) -> At {
        let at = self.lines.len() * 64;
        for chunk in bytes.chunks(64) {
            let mut line = Line([0xa5; 64]);
            line.0[..chunk.len()].copy_from_slice(chunk);
            self.lines.push(line);
        }
        // A guard line behind each operand: whoever writes beyond the end is seen by `guards_are_whole`.
        self.lines.push(Line([0xa5; 64]));
        self.words.extend([at as f64, code]);
        At(at)
    }

    pub fn f32s(&mut self, values: &[f32]) -> At {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.push(&bytes, 0.0)
    }

    pub fn bf16s(&mut self, values: &[f32]) -> At {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
            .collect();
        self.push(&bytes, 1.0)
    }

    /// Stored as bf16 or f32.
    pub fn floats(&mut self, values: &[f32], is_bf16: bool) -> At {
        if is_bf16 {
            self.bf16s(values)
        } else {
            self.f32s(values)
        }
    }

    pub fn i32s(&mut self, values: &[i32]) -> At {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.push(&bytes, 3.0)
    }

    pub fn absent(&mut self) {
        self.words.extend([-1.0, 0.0]);
    }

    pub fn numbers(&mut self, values: &[f64]) {
        self.words.extend(values);
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: lines are plain bytes.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.lines.len() * 64) }
    }

    pub fn run(&mut self, name: &str, threads: usize, isa: Isa) -> Result<(), KernelError> {
        self.run_on(name, &Pool::new(threads), isa)
    }

    pub fn run_on(&mut self, name: &str, pool: &Pool, isa: Isa) -> Result<(), KernelError> {
        let table = table();
        let (_, kernel) = table.iter().find(|(known, _)| *known == name).expect(name);
        self.run_kernel(*kernel, pool, isa)
    }

    pub fn run_kernel(&mut self, kernel: Kernel, pool: &Pool, isa: Isa) -> Result<(), KernelError> {
        let words = self.words.clone();
        let memory = Memory::new(self.bytes());
        let ledger = Ledger::default();
        kernel(&Ctx::new(pool, isa), &mut Args::new(&memory, &words, &ledger))
    }

    pub fn read_f32(&mut self, at: At, len: usize) -> Vec<f32> {
        let bytes = &self.bytes()[at.0..at.0 + len * 4];
        assert_eq!(bytes.len(), len * 4);
        bytes
            .chunks(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect()
    }

    pub fn read_i32(&mut self, at: At, len: usize) -> Vec<i32> {
        self.read_f32(at, len)
            .iter()
            .map(|v| v.to_bits() as i32)
            .collect()
    }

    pub fn read_bf16(&mut self, at: At, len: usize) -> Vec<f32> {
        let bytes = &self.bytes()[at.0..at.0 + len * 2];
        bytes
            .chunks(2)
            .map(|b| bf16::to_f32(u16::from_le_bytes([b[0], b[1]])))
            .collect()
    }

    pub fn read(&mut self, at: At, len: usize, is_bf16: bool) -> Vec<f32> {
        if is_bf16 {
            self.read_bf16(at, len)
        } else {
            self.read_f32(at, len)
        }
    }

    /// All bytes: two runs that should agree to the bit are compared whole.
    pub fn snapshot(&mut self) -> Vec<u8> {
        self.bytes().to_vec()
    }

    /// Overwrites an operand, so that one arena serves several runs.
    pub fn write_f32(&mut self, at: At, values: &[f32]) {
        for (i, v) in values.iter().enumerate() {
            let start = at.0 + i * 4;
            self.bytes()[start..start + 4].copy_from_slice(&v.to_le_bytes());
        }
    }
}

/// Numbers between -1 and 1 from a linear congruential generator.
pub fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}
