//! The arithmetic that every kernel shares: exp, sigmoid and log as fixed FMA polynomials, and sums over 64
//! virtual lanes. No library call, no approximate reciprocal: so every instruction set gives the same bits.
//!
//! All functions are `#[inline(always)]`: called in a loop inside an `isa_twins!` body they become vector code.

/// Virtual lanes of a row reduction: element `i` belongs to lane `i % LANES`.
pub const LANES: usize = 64;

/// e^x to about one unit in the last place; 0 below -87.336 (where the result would be denormal), infinity above
/// 88.72, NaN for NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // x = n ln 2 + r with |r| <= ln 2 / 2; adding 1.5 * 2^23 rounds to the nearest integer.
    const MAGIC: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x > 89.0 { 89.0 } else { x };
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = n.mul_add(-LN2_HIGH, clamped);
    let r = n.mul_add(-LN2_LOW, r);
    let p = 1.987_569_2e-4_f32;
    let p = p.mul_add(r, 1.398_2e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 0.5);
    let p = p.mul_add(r * r, r) + 1.0;
    // 2^n in two factors, because 2^128 is no f32 but p * 2^128 may be one.
    let exponent = shifted.to_bits().wrapping_sub(MAGIC.to_bits()) as i32;
    let half = exponent >> 1;
    let first = f32::from_bits(((half.wrapping_add(127)) as u32) << 23);
    let second = f32::from_bits((exponent.wrapping_sub(half).wrapping_add(127) as u32) << 23);
    let y = p * first * second;
    if x < -87.336_54 { 0.0 } else { y }
}

/// 1 / (1 + e^-x), by a true division.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// x * sigmoid(x).
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// Natural logarithm to about one unit in the last place; minus infinity for 0 (and denormals), NaN below.
#[inline(always)]
pub fn log(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // x = m 2^e with m in [sqrt(1/2), sqrt(2)): the offset moves the cut between octaves to sqrt(1/2).
    let bits = x.to_bits();
    let shifted = bits.wrapping_sub(0x3f35_04f3);
    let e = ((shifted as i32) >> 23) as f32;
    let m = f32::from_bits((shifted & 0x007f_ffff).wrapping_add(0x3f35_04f3));
    let r = m - 1.0;
    let p = 7.037_683_6e-2_f32;
    let p = p.mul_add(r, -1.151_461e-1);
    let p = p.mul_add(r, 1.167_699_8e-1);
    let p = p.mul_add(r, -1.242_014_1e-1);
    let p = p.mul_add(r, 1.424_932_3e-1);
    let p = p.mul_add(r, -1.666_805_7e-1);
    let p = p.mul_add(r, 2.000_071_4e-1);
    let p = p.mul_add(r, -2.499_999_4e-1);
    let p = p.mul_add(r, 3.333_333_1e-1);
    let square = r * r;
    let tail = e.mul_add(LN2_LOW, p * r * square);
    let tail = square.mul_add(-0.5, tail);
    let y = e.mul_add(LN2_HIGH, r + tail);
    if x < 1.175_494_4e-38 {
        return if x >= 0.0 || x > -1.175_494_4e-38 {
            f32::NEG_INFINITY
        } else {
            f32::NAN
        };
    }
    if x == f32::INFINITY || x.is_nan() { x } else { y }
}

/// Partial sums of a row, one per virtual lane.
#[derive(Clone, Copy)]
pub struct Lanes(pub [f32; LANES]);

impl Lanes {
    #[inline(always)]
    pub fn zero() -> Lanes {
        Lanes([0.0; LANES])
    }

    #[inline(always)]
    pub fn filled(value: f32) -> Lanes {
        Lanes([value; LANES])
    }

    /// The fixed tree: lane l += lane l + 32, then + 16, ... + 1.
    #[inline(always)]
    pub fn sum(mut self) -> f32 {
        let mut width = LANES / 2;
        while width > 0 {
            for l in 0..width {
                self.0[l] += self.0[l + width];
            }
            width /= 2;
        }
        self.0[0]
    }

    /// The greatest lane (NaN is skipped unless it sits in a first half of the tree).
    #[inline(always)]
    pub fn max(mut self) -> f32 {
        let mut width = LANES / 2;
        while width > 0 {
            for l in 0..width {
                let (a, b) = (self.0[l], self.0[l + width]);
                self.0[l] = if b > a { b } else { a };
            }
            width /= 2;
        }
        self.0[0]
    }
}

/// Sum of `value(i)` for `i` in `0..n`, over virtual lanes.
#[inline(always)]
pub fn sum_of(n: usize, value: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = Lanes::zero();
    let full = n / LANES * LANES;
    let mut start = 0;
    while start < full {
        for l in 0..LANES {
            lanes.0[l] += value(start + l);
        }
        start += LANES;
    }
    for i in full..n {
        lanes.0[i - full] += value(i);
    }
    lanes.sum()
}

/// Sum of `a(i) * b(i)`, each lane one FMA chain.
#[inline(always)]
pub fn dot_of(n: usize, a: impl Fn(usize) -> f32, b: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = Lanes::zero();
    let full = n / LANES * LANES;
    let mut start = 0;
    while start < full {
        for l in 0..LANES {
            lanes.0[l] = a(start + l).mul_add(b(start + l), lanes.0[l]);
        }
        start += LANES;
    }
    for i in full..n {
        lanes.0[i - full] = a(i).mul_add(b(i), lanes.0[i - full]);
    }
    lanes.sum()
}

/// Sum of a row.
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    sum_of(x.len(), |i| x[i])
}

/// Sum of a row's squares.
#[inline(always)]
pub fn sum_of_squares(x: &[f32]) -> f32 {
    dot_of(x.len(), |i| x[i], |i| x[i])
}

/// Inner product of two rows of equal length.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let b = &b[..a.len()];
    dot_of(a.len(), |i| a[i], |i| b[i])
}

/// Greatest element, minus infinity for an empty row. A NaN is passed over.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let mut lanes = Lanes::filled(f32::NEG_INFINITY);
    let mut chunks = x.chunks_exact(LANES);
    for chunk in &mut chunks {
        for l in 0..LANES {
            lanes.0[l] = if chunk[l] > lanes.0[l] {
                chunk[l]
            } else {
                lanes.0[l]
            };
        }
    }
    for (l, v) in chunks.remainder().iter().enumerate() {
        lanes.0[l] = if *v > lanes.0[l] { *v } else { lanes.0[l] };
    }
    lanes.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relative_error(actual: f32, exact: f64) -> f64 {
        ((actual as f64 - exact) / exact).abs()
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place_over_its_whole_range() {
        let mut worst = 0.0f64;
        for i in 0..1_000_000 {
            let x = -87.3 + i as f32 * (176.0 / 1_000_000.0);
            worst = worst.max(relative_error(exp(x), (x as f64).exp()));
        }
        assert!(worst < 1.5e-7, "worst relative error {worst:e}");
    }

    #[test]
    fn exp_keeps_the_limits() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1000.0), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(89.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn log_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for i in 1..1_000_000u32 {
            let x = f32::from_bits(0x0080_0000 + i * 2130);
            let exact = (x as f64).ln();
            let error = (log(x) as f64 - exact).abs() / exact.abs().max(1e-3);
            worst = worst.max(error);
        }
        assert!(worst < 1.5e-7, "worst relative error {worst:e}");
        assert_eq!(log(1.0), 0.0);
        assert_eq!(log(0.0), f32::NEG_INFINITY);
        assert_eq!(log(f32::INFINITY), f32::INFINITY);
        assert!(log(-1.0).is_nan() && log(f32::NAN).is_nan());
    }

    #[test]
    fn sigmoid_and_silu_follow_their_formula() {
        for i in -2000..2000 {
            let x = i as f32 * 0.05;
            let exact = 1.0 / (1.0 + (-x as f64).exp());
            assert!((sigmoid(x) as f64 - exact).abs() < 2e-7, "{x}");
            assert!(
                (silu(x) as f64 - x as f64 * exact).abs() <= 4e-7 * (x as f64).abs() + 1e-30,
                "{x}"
            );
        }
    }

    #[test]
    fn row_sums_follow_the_lane_order_exactly() {
        for n in [0, 1, 63, 64, 65, 200, 517] {
            let x: Vec<f32> = (0..n).map(|i| ((i * 7919) % 1000) as f32 * 0.013 - 6.0).collect();
            let mut lanes = [0.0f32; LANES];
            for (i, v) in x.iter().enumerate() {
                lanes[i % LANES] += v;
            }
            for width in [32, 16, 8, 4, 2, 1] {
                for l in 0..width {
                    lanes[l] += lanes[l + width];
                }
            }
            assert_eq!(sum(&x).to_bits(), lanes[0].to_bits(), "n = {n}");
            let exact: f64 = x.iter().map(|v| (*v as f64) * (*v as f64)).sum();
            assert!(
                (sum_of_squares(&x) as f64 - exact).abs() <= exact * 1e-5,
                "n = {n}"
            );
            assert_eq!(dot(&x, &x).to_bits(), sum_of_squares(&x).to_bits());
            let greatest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(max(&x), greatest);
        }
    }
}
