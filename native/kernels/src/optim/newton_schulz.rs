//! Newton-Schulz: every singular value of a matrix towards 1, by products alone.
//!
//! ```text
//! A = X X^T        P = a I + b A + c A^2        X = P X        five times, with a, b, c = 3.4445, -4.7750, 2.0315
//! ```
//!
//! The polynomial is Jordan's (Muon, 2024): steep at 0, so that small singular values rise fast, and content with
//! values between about 0.7 and 1.2. X is [n, k] with n <= k and of Frobenius norm at most 1; A and P are [n, n].
//! The identity is part of P, so that an iteration is three products and one pass over [n, n].

use super::pack_rows::{Words, pack_matrix, pack_matrix_transposed};
use crate::args::{Floats, FloatsMut};
use crate::gemm::{Arithmetic, Matrix, Panels, matmul, matmul_alone, panels_len};
use crate::isa::Isa;
use crate::ops::Ctx;
use crate::pool::Scratch;
use crate::{by_isa, isa_twins};

const COEFFICIENTS: [f32; 3] = [3.4445, -4.7750, 2.0315];
const ITERATIONS: usize = 5;

/// Who multiplies: the whole pool, where there are few matrices, or the one thread of a task, where there are many.
/// The bits are the same.
pub enum Hands<'a> {
    Pool(&'a Ctx<'a>),
    Task(Isa, &'a mut Scratch),
}

impl Hands<'_> {
    fn isa(&self) -> Isa {
        match self {
            Hands::Pool(ctx) => ctx.isa,
            Hands::Task(isa, _) => *isa,
        }
    }

    fn product(&mut self, x: &[f32], rows: usize, panels: Panels, y: &mut [f32]) {
        let (x, stride) = (Matrix::new(Floats::F32(x), panels.k), panels.n);
        match self {
            Hands::Pool(ctx) => matmul(ctx, x, rows, panels, None, FloatsMut::F32(y), stride),
            Hands::Task(isa, scratch) => matmul_alone(*isa, scratch, x, rows, panels, y),
        }
    }
}

/// Memory of one matrix, cut from a workspace.
pub struct Room<'a> {
    pub x: &'a mut [f32],
    y: &'a mut [f32],
    gram: &'a mut [f32],
    polynomial: &'a mut [f32],
    panels: &'a mut [f32],
}

/// Sections begin at whole lines.
fn lines(floats: usize) -> usize {
    floats.next_multiple_of(16)
}

/// Floats that a matrix [n, k], n <= k, needs; `muonWorkspace` in tensor/ops/optimizer/muon.ts says the same.
pub fn room_floats(n: usize, k: usize) -> usize {
    2 * lines(n * k) + 2 * lines(n * n) + panels_len(n, k).max(panels_len(k, n))
}

impl<'a> Room<'a> {
    pub fn cut(floats: &'a mut [f32], n: usize, k: usize) -> Room<'a> {
        let (x, rest) = floats.split_at_mut(lines(n * k));
        let (y, rest) = rest.split_at_mut(lines(n * k));
        let (gram, rest) = rest.split_at_mut(lines(n * n));
        let (polynomial, panels) = rest.split_at_mut(lines(n * n));
        Room {
            x: &mut x[..n * k],
            y: &mut y[..n * k],
            gram: &mut gram[..n * n],
            polynomial: &mut polynomial[..n * n],
            panels,
        }
    }

    /// Turns the matrix [rows, columns] in `x` into its transpose.
    pub fn transpose(&mut self, rows: usize, columns: usize) {
        for i in 0..rows {
            for j in 0..columns {
                self.y[j * rows + i] = self.x[i * columns + j];
            }
        }
        std::mem::swap(&mut self.x, &mut self.y);
    }
}

/// Which of a matrix's two packed forms.
#[derive(Clone, Copy)]
enum Form {
    Plain,
    Transposed,
}

/// Packs the matrix [n, k], or its transpose, in the numbers that the arithmetic reads.
fn packed<'p>(
    (isa, arithmetic): (Isa, Arithmetic),
    w: &[f32],
    (n, k): (usize, usize),
    form: Form,
    room: &'p mut [f32],
) -> Panels<'p> {
    let (outputs, inputs) = match form {
        Form::Plain => (n, k),
        Form::Transposed => (k, n),
    };
    let len = panels_len(outputs, inputs);
    let data = match arithmetic {
        Arithmetic::F32 => {
            let out = &mut room[..len];
            fill(isa, w, (n, k), form, out);
            Floats::F32(out)
        }
        Arithmetic::Bf16 => {
            assert!(len <= 2 * room.len(), "room for packed numbers");
            // SAFETY: inside the room, of half the size; any bits are valid for both.
            let out = unsafe { std::slice::from_raw_parts_mut(room.as_mut_ptr().cast::<u16>(), len) };
            fill(isa, w, (n, k), form, out);
            Floats::Bf16(out)
        }
    };
    Panels {
        data,
        n: outputs,
        k: inputs,
    }
}

fn fill<P: Words>(isa: Isa, w: &[f32], (n, k): (usize, usize), form: Form, out: &mut [P]) {
    match form {
        Form::Plain => pack_matrix(isa, w, n, k, out),
        Form::Transposed => pack_matrix_transposed(isa, w, n, k, out),
    }
}

isa_twins! {
    /// p = a I + b A + c p, where p holds A^2.
    fn to_polynomial(p: &mut [f32], gram: &[f32], n: usize) {
        let [a, b, c] = COEFFICIENTS;
        let gram = &gram[..p.len()];
        for i in 0..p.len() {
            p[i] = c.mul_add(p[i], b * gram[i]);
        }
        for i in 0..n {
            p[i * n + i] += a;
        }
    }
}

/// Runs all iterations on `room.x`, which holds the result afterwards.
pub fn orthogonalize(hands: &mut Hands, arithmetic: Arithmetic, room: &mut Room, n: usize, k: usize) {
    let isa = hands.isa();
    let kind = (isa, arithmetic);
    for _ in 0..ITERATIONS {
        let panels = packed(kind, room.x, (n, k), Form::Plain, room.panels);
        hands.product(room.x, n, panels, room.gram);
        // A is symmetric: its rows are its columns, so that the product with its own panels is the square.
        let panels = packed(kind, room.gram, (n, n), Form::Plain, room.panels);
        hands.product(room.gram, n, panels, room.polynomial);
        by_isa!(isa, to_polynomial(room.polynomial, room.gram, n));
        let panels = packed(kind, room.x, (n, k), Form::Transposed, room.panels);
        hands.product(room.polynomial, n, panels, room.y);
        std::mem::swap(&mut room.x, &mut room.y);
    }
}
