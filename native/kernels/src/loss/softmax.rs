//! One row of logits: its cross-entropy, and the gradient of that in the row's own place. A row of a few
//! thousand logits stays in the first cache through all passes.

use crate::bf16::Element;
use crate::math::{LANES, Lanes, exp, log, max};
use crate::{bf16, isa_twins};

/// What a row tells about its target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowLoss {
    /// -log softmax(row)[target], in nats
    pub loss: f32,
    /// The target is the greatest logit, and the first of its kind.
    pub hit: bool,
}

#[inline(always)]
fn is_first_maximum(row: &[f32], target: usize, greatest: f32) -> bool {
    row[target] == greatest && !row[..target].contains(&greatest)
}

isa_twins! {
    pub fn row_loss(row: &[f32], target: usize) -> RowLoss {
        let greatest = max(row);
        let mut lanes = Lanes::zero();
        let (chunks, rest) = row.as_chunks::<LANES>();
        for chunk in chunks {
            for l in 0..LANES {
                lanes.0[l] += exp(chunk[l] - greatest);
            }
        }
        for (l, value) in rest.iter().enumerate() {
            lanes.0[l] += exp(*value - greatest);
        }
        let sum = lanes.sum();
        let loss = log(sum) - (row[target] - greatest);
        RowLoss { loss, hit: is_first_maximum(row, target, greatest) }
    }
}

isa_twins! {
    /// As `row_loss`; the row becomes grad_scale * (softmax - onehot(target)), as f32 or, in the front half of the
    /// same memory, as bf16.
    pub fn row_loss_and_gradient(row: &mut [f32], target: usize, grad_scale: f32, narrow: bool) -> RowLoss {
        let greatest = max(row);
        let hit = is_first_maximum(row, target, greatest);
        let target_logit = row[target] - greatest;
        let sum = exponentials(row, greatest);
        let at_target = grad_scale * (row[target] / sum - 1.0);
        let factor = grad_scale / sum;
        if narrow {
            narrow_scaled(row, factor);
            front(row)[target] = bf16::from_f32(at_target);
        } else {
            for value in row.iter_mut() {
                *value *= factor;
            }
            row[target] = at_target;
        }
        RowLoss { loss: log(sum) - target_logit, hit }
    }
}

/// Replaces the row by exp(row - greatest) and returns their sum, over virtual lanes as in `row_loss`.
#[inline(always)]
fn exponentials(row: &mut [f32], greatest: f32) -> f32 {
    let mut lanes = Lanes::zero();
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for l in 0..LANES {
            chunk[l] = exp(chunk[l] - greatest);
            lanes.0[l] += chunk[l];
        }
    }
    for (l, value) in rest.iter_mut().enumerate() {
        *value = exp(*value - greatest);
        lanes.0[l] += *value;
    }
    lanes.sum()
}

/// The row's front half as bf16.
#[inline(always)]
fn front(row: &mut [f32]) -> &mut [u16] {
    // SAFETY: `row.len()` numbers of half the size; any bits are valid for both.
    unsafe { std::slice::from_raw_parts_mut(row.as_mut_ptr().cast(), row.len()) }
}

/// Writes factor * row[i] as bf16 number i of the same memory. Ascending, a chunk read before it is written: what is
/// written never lies behind what is still to be read.
#[inline(always)]
fn narrow_scaled(row: &mut [f32], factor: f32) {
    let mut start = 0;
    while start < row.len() {
        let len = LANES.min(row.len() - start);
        let mut wide = [0.0; LANES];
        if len == LANES {
            wide.copy_from_slice(&row[start..start + LANES]);
        } else {
            wide[..len].copy_from_slice(&row[start..start + len]);
        }
        let mut narrow = [0u16; LANES];
        for l in 0..LANES {
            narrow[l] = u16::from_f32(wide[l] * factor);
        }
        if len == LANES {
            front(row)[start..start + LANES].copy_from_slice(&narrow);
        } else {
            front(row)[start..start + len].copy_from_slice(&narrow[..len]);
        }
        start += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::by_isa;
    use crate::isa::Isa;
    use crate::optim::test_arena::noise;

    fn exact(row: &[f32], target: usize) -> (f64, Vec<f64>) {
        let greatest = row.iter().fold(f64::NEG_INFINITY, |m, v| m.max(*v as f64));
        let sum: f64 = row.iter().map(|v| (*v as f64 - greatest).exp()).sum();
        let gradient = row
            .iter()
            .enumerate()
            .map(|(i, v)| (*v as f64 - greatest).exp() / sum - f64::from(i == target))
            .collect();
        (sum.ln() + greatest - row[target] as f64, gradient)
    }

    #[test]
    fn loss_and_gradient_follow_the_definition_with_equal_bits_on_every_path() {
        for v in [1, 2, 63, 64, 65, 517] {
            let logits: Vec<f32> = noise(v, 5).iter().map(|x| x * 20.0).collect();
            let target = v * 2 / 3;
            let (loss, gradient) = exact(&logits, target);
            let mut bits = None;
            for isa in Isa::usable() {
                let plain = by_isa!(isa, row_loss(&logits, target));
                let mut row = logits.clone();
                let both = by_isa!(isa, row_loss_and_gradient(&mut row, target, 0.25, false));
                assert_eq!(plain, both);
                assert!((plain.loss as f64 - loss).abs() < 2e-6 * loss.abs().max(1.0));
                for (i, g) in gradient.iter().enumerate() {
                    assert!((row[i] as f64 - 0.25 * g).abs() < 1e-7, "{v} {i}: {} {g}", row[i]);
                }
                let found: Vec<u32> = row.iter().chain([&plain.loss]).map(|x| x.to_bits()).collect();
                assert_eq!(bits.get_or_insert(found.clone()), &found, "{isa}");
                let mut halves = logits.clone();
                by_isa!(isa, row_loss_and_gradient(&mut halves, target, 0.25, true));
                let narrow: Vec<u16> = row.iter().map(|x| bf16::from_f32(*x)).collect();
                assert_eq!(front(&mut halves), &narrow, "{isa}: bf16 is the f32 row rounded");
            }
        }
    }

    #[test]
    fn of_equal_maxima_only_the_first_is_a_hit() {
        let row = [1.0, 3.0, 3.0, -1.0];
        let isa = Isa::detect();
        assert!(by_isa!(isa, row_loss(&row, 1)).hit);
        assert!(!by_isa!(isa, row_loss(&row, 2)).hit);
    }

    #[test]
    fn a_logit_that_is_no_number_makes_the_loss_none_either() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut row = [0.5, bad, 1.0];
            assert!(by_isa!(Isa::detect(), row_loss(&row, 0)).loss.is_nan());
            let found = by_isa!(Isa::detect(), row_loss_and_gradient(&mut row, 0, 1.0, false));
            assert!(found.loss.is_nan() && row[2].is_nan());
        }
    }
}
