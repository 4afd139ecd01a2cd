//! Newton-Schulz: every singular value of a matrix towards 1, by products alone.
//!
//! ```text
//! A = X X^T        P = a I + b A + c A^2        X = P X        five times, with a, b, c = 3.4445, -4.7750, 2.0315
//! ```
//!
//! The polynomial is Jordan's (Muon, 2024): steep at 0, so that small singular values rise fast, and content with
//! values between about 0.7 and 1.2. X is [n, k] with n <= k and of Frobenius norm at most 1; A and P are [n, n].
//! The identity is part of P, so that an iteration is three products and one pass over [n, n].

#[cfg(target_arch = "x86_64")]
mod tiles;

use super::pack_rows::{Words, pack_matrix, pack_matrix_transposed};
use crate::args::{Floats, FloatsMut};
#[cfg(target_arch = "x86_64")]
use crate::gemm::micro;
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
    fn transpose(&mut self, rows: usize, columns: usize) {
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

/// Whether one thread does best alone, having all of a matrix [rows, columns] in its cache.
#[cfg(target_arch = "x86_64")]
pub fn alone(isa: Isa, arithmetic: Arithmetic, rows: usize, columns: usize) -> bool {
    micro::by_amx(isa, arithmetic) && tiles::fits(place(rows, columns))
}

#[cfg(not(target_arch = "x86_64"))]
pub fn alone(_: Isa, _: Arithmetic, _: usize, _: usize) -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
fn place(rows: usize, columns: usize) -> tiles::Place {
    tiles::Place {
        n: rows.min(columns),
        k: rows.max(columns),
        turned: rows > columns,
    }
}

/// Runs all iterations on the matrix [rows, columns] in `room.x`, which holds the result afterwards.
pub fn orthogonalize(
    hands: &mut Hands,
    arithmetic: Arithmetic,
    room: &mut Room,
    rows: usize,
    columns: usize,
) {
    #[cfg(target_arch = "x86_64")]
    if let Hands::Task(isa, scratch) = hands
        && alone(*isa, arithmetic, rows, columns)
    {
        // SAFETY: `alone` asks for AMX.
        return unsafe { tiles::orthogonalize(scratch, room.x, place(rows, columns)) };
    }
    // The square of the shorter side is the smaller matrix.
    if rows > columns {
        room.transpose(rows, columns);
        by_products(hands, arithmetic, room, columns, rows);
        room.transpose(columns, rows);
    } else {
        by_products(hands, arithmetic, room, rows, columns);
    }
}

/// The plain form, of any size, by the GEMM that everything else uses: X is [n, k] with n <= k.
fn by_products(hands: &mut Hands, arithmetic: Arithmetic, room: &mut Room, n: usize, k: usize) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::test_arena::noise;
    use crate::pool::Pool;

    #[test]
    fn tiles_give_the_bits_of_plain_products_for_every_shape_that_fits() {
        let isa = Isa::usable().into_iter().next().expect("one");
        if !alone(isa, Arithmetic::Bf16, 8, 8) {
            println!("skipped: this processor has no AMX, so that there is one path only");
            return;
        }
        let pool = Pool::new(1);
        let (mut tried, shapes) = (0, [1, 2, 16, 17, 31, 32, 33, 40, 48, 64, 96, 129, 352]);
        for rows in shapes {
            for columns in shapes {
                let start = noise(rows * columns, rows as u64);
                let length = start.iter().map(|v| v * v).sum::<f32>().sqrt();
                let (short, long) = (rows.min(columns), rows.max(columns));
                let run = |plain: bool| {
                    let mut floats = vec![[f32::NAN; 16]; room_floats(short, long).div_ceil(16) + 1];
                    let skip = floats.as_ptr().cast::<f32>().align_offset(64);
                    let floats = floats.as_flattened_mut();
                    let result = std::sync::Mutex::new(Vec::new());
                    let room = Room::cut(&mut floats[skip..], short, long);
                    for (x, v) in room.x.iter_mut().zip(&start) {
                        *x = v / length;
                    }
                    let room = std::sync::Mutex::new(room);
                    pool.run(1, &|_, scratch| {
                        let mut room = room.lock().unwrap();
                        let mut hands = Hands::Task(isa, scratch);
                        let arithmetic = Arithmetic::Bf16;
                        if !plain {
                            orthogonalize(&mut hands, arithmetic, &mut room, rows, columns);
                        } else if rows > columns {
                            room.transpose(rows, columns);
                            by_products(&mut hands, arithmetic, &mut room, short, long);
                            room.transpose(columns, rows);
                        } else {
                            by_products(&mut hands, arithmetic, &mut room, short, long);
                        }
                        *result.lock().unwrap() = room.x.iter().map(|v| v.to_bits()).collect();
                    });
                    result.into_inner().unwrap()
                };
                assert!(run(true) == run(false), "{rows}x{columns}");
                tried += usize::from(alone(isa, Arithmetic::Bf16, rows, columns));
            }
        }
        assert!(tried > 100, "most of these shapes fit: {tried}");
    }
}
