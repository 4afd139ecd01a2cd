//! Sums as an H800's tensor cores make them, about 14 bits: plain code for every instruction set, to be compared with.
//!
//! 32 products and what was summed before are cut, towards minus infinity, to multiples of one power of two, 14 bits below
//! the largest of them; their sum is cut to 14 fraction bits again. Every step is exact in f32: products of E4M3 have 8
//! bits, and 33 terms of 15 bits make 21.

use super::decode::E4m3;
use super::scaling::Factors;
use super::{TENSOR_CORE_BITS, TILE};
use crate::bf16::Element;
use crate::gemm::micro::PANEL;
use crate::isa::Isa;
use crate::{by_isa, isa_twins};

/// Products of one instruction.
const GROUP: usize = 32;

/// A row of sums, one for each column of a panel.
pub type Line = [f32; PANEL];

/// Decodes `len` codes that lie `stride` apart.
pub fn decode(codes: &[E4m3], stride: usize, out: &mut [f32]) {
    for (i, value) in out.iter_mut().enumerate() {
        *value = codes[i * stride].to_f32();
    }
}

/// The sums of one row: `a` its numbers along k, `b` the panel's, 32 for each; `promotion` 0: never promoted.
pub fn row(
    isa: Isa,
    (a, b): (&[f32], &[f32]),
    (row, panel): (usize, usize),
    promotion: usize,
    factors: &impl Factors,
) -> Line {
    let scale_of = |tile: usize| {
        let (row, columns) = (factors.rows(tile, row, 1)[0], factors.columns(tile, panel));
        columns.map(|column| row * column)
    };
    let mut sums = [0.0; PANEL];
    if promotion == 0 {
        for from in (0..a.len()).step_by(GROUP) {
            let to = (from + GROUP).min(a.len());
            let scales = scale_of(from / TILE);
            by_isa!(
                isa,
                add_group(&a[from..to], &b[from * PANEL..to * PANEL], &scales, &mut sums)
            );
        }
        return sums;
    }
    for from in (0..a.len()).step_by(promotion) {
        let to = (from + promotion).min(a.len());
        let mut partial = [0.0; PANEL];
        for from in (from..to).step_by(GROUP) {
            let to = (from + GROUP).min(to);
            let (a, b) = (&a[from..to], &b[from * PANEL..to * PANEL]);
            by_isa!(isa, add_group(a, b, &[1.0; PANEL], &mut partial));
        }
        let scales = scale_of(from / TILE);
        for c in 0..PANEL {
            sums[c] = partial[c].mul_add(scales[c], sums[c]);
        }
    }
    sums
}

/// The power of two of the last of 14 fraction bits of a number of that size, and its inverse; no smaller than the smallest
/// normal number's.
#[inline(always)]
fn last_bit(size: f32) -> (f32, f32) {
    let exponent = (size.to_bits() >> 23 & 0xff) as i32;
    let last = (exponent - TENSOR_CORE_BITS as i32).clamp(1, 253);
    (
        f32::from_bits((last as u32) << 23),
        f32::from_bits(((254 - last) as u32) << 23),
    )
}

isa_twins! {
    fn add_group(a: &[f32], b: &[f32], scales: &Line, sums: &mut Line) {
        let mut largest = *sums;
        for c in 0..PANEL {
            largest[c] = largest[c].abs();
        }
        for (a, b) in a.iter().zip(b.chunks_exact(PANEL)) {
            for c in 0..PANEL {
                let size = (a * b[c] * scales[c]).abs();
                // NaN is neither larger nor not: it comes back in the sum.
                largest[c] = if size > largest[c] { size } else { largest[c] };
            }
        }
        let mut units = [(0.0, 0.0); PANEL];
        let mut totals = [0.0; PANEL];
        for c in 0..PANEL {
            units[c] = last_bit(largest[c]);
            totals[c] = (sums[c] * units[c].1).floor();
        }
        for (a, b) in a.iter().zip(b.chunks_exact(PANEL)) {
            for c in 0..PANEL {
                totals[c] += (a * b[c] * scales[c] * units[c].1).floor();
            }
        }
        for c in 0..PANEL {
            // In units the total is a whole number: it has at least 0 bits behind the point.
            let (rest, inverse) = last_bit(totals[c].abs().max(1.0));
            let (rest, inverse) = if rest < 1.0 { (1.0, 1.0) } else { (rest, inverse) };
            sums[c] = (totals[c] * inverse).floor() * rest * units[c].0;
        }
    }
}
