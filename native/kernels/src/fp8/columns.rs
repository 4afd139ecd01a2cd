//! quantizeColumns: x [Tx, K] -> codes [R, K], scales [S, K]: a scale for each 128 rows of a group and each column
//!
//! contract   src/tensor/ops/fp8/quantizeColumns.ts: the same bits; there too where each group's scales lie
//! layout     codes row-major; group g's tiles begin at scale row offsets[g] / 128 + g, other rows stay as they were
//! dtype      x f32 or bf16, or f8e4m3 or e5m6 with the scales of 1x128 tiles; codes f8e4m3; scales f32
//! limits     empty groups, R = 0, any K; row indices and offsets are checked before anything is written
//! tiling     a task is one tile of rows by 128 columns, widened to f32 in scratch memory while maxima are taken
//! why so     columns are vectors here: 128 maxima and 128 scales side by side, no transposition
//! versions   v1 (this file); v2 (wide/columns.rs): 64 columns stay in 512-bit registers, twice as fast

#[cfg(target_arch = "x86_64")]
mod blocks;

use super::codec::{Code, E4m3, E5m6, LEAST_DIVISOR, Rule, TILE, quotient};
use super::segment::Stored;
use super::tiles::{check_width, given_amax};
use crate::args::{Args, Dtype, Floats, Operand, elements};
use crate::bf16::Element;
use crate::error::KernelError;
use crate::gemm::grouped::check_offsets;
#[cfg(target_arch = "x86_64")]
use crate::isa::Isa;
use crate::ops::Ctx;
use crate::pool::Disjoint;
use crate::{by_isa, isa_twins};

/// Columns of a task where there are many tiles of rows: neighbours are asked for before they are read.
const STRIP: usize = 512;

/// What is quantised, before its dtype is known.
enum Source<'a> {
    Floats(Floats<'a>),
    E4m3(&'a [u8], &'a [f32]),
    E5m6(&'a [u8], &'a [f32]),
}

/// Rows `from..to` of one group, whose scales lie in row `scale_row`.
struct Tile {
    from: usize,
    to: usize,
    scale_row: usize,
}

fn tiles_of(offsets: &[i32]) -> Vec<Tile> {
    let mut tiles = Vec::new();
    for (g, pair) in offsets.windows(2).enumerate() {
        let (start, end) = (pair[0] as usize, pair[1] as usize);
        for (i, from) in (start..end).step_by(TILE).enumerate() {
            tiles.push(Tile {
                from,
                to: (from + TILE).min(end),
                scale_row: start / TILE + g + i,
            });
        }
    }
    tiles
}

/// Refuses x with scales that it has no use for, and codes without.
fn take_source<'a>(
    x: &Operand<'a>,
    scales: Option<Operand<'a>>,
    rows: usize,
    k: usize,
) -> Result<Source<'a>, KernelError> {
    let size = elements(&[rows, k])?;
    let is_coded = matches!(x.dtype(), Dtype::F8E4m3 | Dtype::E5m6);
    let Some(scales) = scales else {
        if is_coded {
            return Err(KernelError::new("xScales", "is absent, codes need it"));
        }
        return Ok(Source::Floats(x.slice(size)?));
    };
    let scales = scales.f32s(rows * k.div_ceil(TILE))?;
    match x.dtype() {
        Dtype::F8E4m3 => Ok(Source::E4m3(x.bytes(size)?, scales)),
        Dtype::E5m6 => Ok(Source::E5m6(x.bytes(size)?, scales)),
        dtype => {
            let message = format!("is there, but x is {}", dtype.name());
            Err(KernelError::new("xScales", message))
        }
    }
}

/// Rows of x that the indices reach.
fn source_rows(rows: Option<&[i32]>, r: usize) -> Result<usize, KernelError> {
    let Some(rows) = rows else { return Ok(r) };
    if let Some(bad) = rows.iter().find(|i| **i < 0) {
        return Err(KernelError::new("rows", format!("{bad} is no row of x")));
    }
    Ok(rows.iter().max().map_or(0, |max| *max as usize + 1))
}

struct Job<'a> {
    x: Source<'a>,
    rows: Option<&'a [i32]>,
    k: usize,
    given: Option<f32>,
    rule: Rule,
    columns_per_tile: usize,
    codes: Disjoint<'a, u8>,
    scales: Disjoint<'a, f32>,
}

/// x, xScales?, rows?, offsets?, amax?, codes, scales; R, K, G, powerOfTwo, floor, columnsPerTile
pub fn quantize_columns(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let x = a.one_of("x", &[Dtype::F32, Dtype::Bf16, Dtype::F8E4m3, Dtype::E5m6])?;
    let x_scales = a.f32s_optional("xScales")?;
    let (rows, offsets) = (a.i32s_optional("rows")?, a.i32s_optional("offsets")?);
    let amax = a.f32s_optional("amax")?;
    let (codes, scales) = (a.f8s("codes")?, a.f32s("scales")?);
    let (r, k, g) = (a.usize("R")?, a.usize("K")?, a.usize("G")?);
    let rule = Rule {
        power_of_two: a.flag("powerOfTwo")?,
        floor: a.f32("floor")?,
    };
    let columns_per_tile = a.usize("columnsPerTile")?;
    a.end()?;
    if columns_per_tile != 1 && columns_per_tile != TILE {
        return Err(KernelError::new("columnsPerTile", "is neither 1 nor 128"));
    }
    check_width(&x, k)?;
    let whole = [
        0,
        i32::try_from(r).map_err(|_| KernelError::new("R", "has no room in an i32"))?,
    ];
    let offsets = match offsets {
        Some(offsets) => offsets.i32s(g + 1)?,
        None if g == 1 => &whole,
        None => return Err(KernelError::new("offsets", "is absent, several groups need it")),
    };
    let r = check_offsets(offsets, r)?;
    let rows = rows.map(|rows| rows.i32s(r)).transpose()?;
    let job = Job {
        x: take_source(&x, x_scales, source_rows(rows, r)?, k)?,
        rows,
        k,
        given: given_amax(amax)?,
        rule,
        columns_per_tile,
        codes: Disjoint::new(codes.bytes_mut(elements(&[r, k])?)?),
        scales: Disjoint::new(scales.f32s_mut(elements(&[r / TILE + g, k])?)?),
    };
    let tiles = tiles_of(offsets);
    let is_tall = tiles.len() >= 4 * ctx.pool.threads();
    let strip = if is_tall { STRIP } else { TILE };
    let strips = k.div_ceil(strip);
    ctx.pool.run(tiles.len() * strips, &|task, scratch| {
        let first = task % strips * strip;
        for column in (first..k.min(first + strip)).step_by(TILE) {
            job.tile(ctx, &tiles[task / strips], column, scratch.f32(TILE * TILE));
        }
    });
    Ok(())
}

impl Job<'_> {
    /// One tile of rows, columns from `column` on, at most 128.
    fn tile(&self, ctx: &Ctx, tile: &Tile, column: usize, values: &mut [f32]) {
        let width = TILE.min(self.k - column);
        #[cfg(target_arch = "x86_64")]
        if ctx.isa <= Isa::Avx512Bf16 && self.given.is_none() && self.columns_per_tile == 1 {
            // SAFETY: the processor has it; a task owns these columns.
            if unsafe { self.by_blocks(tile, column, width, values) } {
                return;
            }
        }
        let mut greatest = [0u32; TILE];
        for r in tile.from..tile.to {
            let values = &mut values[(r - tile.from) * TILE..][..width];
            self.widen(ctx, r, column, values);
            by_isa!(ctx.isa, raise(values, &mut greatest));
        }
        let mut scales = [1f32; TILE];
        by_isa!(
            ctx.isa,
            column_scales(
                &greatest[..width],
                self.given,
                self.rule,
                self.columns_per_tile,
                &mut scales
            )
        );
        let how = self.dividing(&scales[..width]);
        let factors = match how {
            Dividing::Divides => scales,
            Dividing::Multiplies | Dividing::Corrects => scales.map(|scale| 1.0 / scale),
        };
        // SAFETY: a task owns these columns of its tile's rows, in codes and in scales.
        unsafe {
            let out = self.scales.part(tile.scale_row * self.k + column, width);
            out.copy_from_slice(&scales[..width]);
            for r in tile.from..tile.to {
                let codes = self.codes.part(r * self.k + column, width);
                let values = &values[(r - tile.from) * TILE..][..width];
                by_isa!(
                    ctx.isa,
                    divide(values, &scales, &factors, how, self.given.is_none(), codes)
                );
            }
        }
    }

    /// How this tile's numbers are divided by these scales.
    fn dividing(&self, scales: &[f32]) -> Dividing {
        if self.rule.power_of_two {
            return Dividing::Multiplies;
        }
        // A scale that is NaN is not small: its column becomes NaN whatever the quotients are.
        let is_small = |scale: &f32| *scale < LEAST_DIVISOR;
        match self.given.is_some() || scales.iter().any(is_small) {
            true => Dividing::Divides,
            false => Dividing::Corrects,
        }
    }

    /// Row r of what is quantised, as f32.
    fn widen(&self, ctx: &Ctx, r: usize, column: usize, values: &mut [f32]) {
        let row = self.rows.map_or(r, |rows| rows[r] as usize);
        let (start, len) = (row * self.k + column, values.len());
        let scale = |scales: &[f32]| scales[row * self.k.div_ceil(TILE) + column / TILE];
        match self.x {
            Source::Floats(Floats::F32(x)) => values.copy_from_slice(&x[start..start + len]),
            Source::Floats(Floats::Bf16(x)) => by_isa!(ctx.isa, widen_floats(&x[start..start + len], values)),
            Source::E4m3(x, scales) => {
                by_isa!(
                    ctx.isa,
                    widen_codes(E4m3, &x[start..start + len], scale(scales), values)
                )
            }
            Source::E5m6(x, scales) => {
                let x = &x[E5m6::bytes(start)..E5m6::bytes(start + len)];
                by_isa!(ctx.isa, widen_codes(E5m6, x, scale(scales), values))
            }
        }
    }
}

isa_twins! {
    fn widen_floats<T: Element>(x: &[T], values: &mut [f32]) {
        let x = &x[..values.len()];
        for i in 0..x.len() {
            values[i] = x[i].to_f32();
        }
    }
}

isa_twins! {
    fn widen_codes<C: Stored>(_code: C, codes: &[u8], scale: f32, values: &mut [f32]) {
        C::read(codes, values);
        for i in 0..values.len() {
            values[i] *= scale;
        }
    }
}

isa_twins! {
    /// Raises each column's maximum, in the order of bits.
    fn raise(values: &[f32], greatest: &mut [u32; TILE]) {
        let greatest = &mut greatest[..values.len()];
        for i in 0..values.len() {
            greatest[i] = greatest[i].max(values[i].to_bits() & 0x7fff_ffff);
        }
    }
}

isa_twins! {
    fn column_scales(greatest: &[u32], given: Option<f32>, rule: Rule, columns_per_tile: usize, scales: &mut [f32; TILE]) {
        let mut of_all = 0;
        for i in 0..greatest.len() {
            of_all = of_all.max(greatest[i]);
        }
        for i in 0..greatest.len() {
            let own = f32::from_bits(if columns_per_tile == 1 { greatest[i] } else { of_all });
            scales[i] = rule.scale::<E4m3>(match given {
                Some(amax) => amax,
                None => own,
            });
        }
    }
}

isa_twins! {
    /// Codes of values / scales, column by column. With `own`, no quotient exceeds the greatest.
    fn divide(values: &[f32], scales: &[f32; TILE], factors: &[f32; TILE], how: Dividing, own: bool, codes: &mut [u8]) {
        match (how, own) {
            (Dividing::Multiplies, true) => cast_columns::<MULTIPLIES, true>(values, scales, factors, codes),
            (Dividing::Multiplies, false) => cast_columns::<MULTIPLIES, false>(values, scales, factors, codes),
            (Dividing::Divides, true) => cast_columns::<DIVIDES, true>(values, scales, factors, codes),
            (Dividing::Divides, false) => cast_columns::<DIVIDES, false>(values, scales, factors, codes),
            (Dividing::Corrects, _) => cast_columns::<CORRECTS, true>(values, scales, factors, codes),
        }
    }
}

/// How a tile's numbers are divided; as a number, a constant parameter of the loop.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Dividing {
    /// Factors are the reciprocals of powers of two.
    Multiplies,
    /// Factors are the scales.
    Divides,
    /// Factors are reciprocals, and products are corrected by the scales.
    Corrects,
}

const MULTIPLIES: u8 = Dividing::Multiplies as u8;
const DIVIDES: u8 = Dividing::Divides as u8;
const CORRECTS: u8 = Dividing::Corrects as u8;

/// A scale that is NaN makes its column NaN, without a sign. With `SMALL` no quotient exceeds the greatest.
#[inline(always)]
fn cast_columns<const HOW: u8, const SMALL: bool>(
    values: &[f32],
    scales: &[f32; TILE],
    factors: &[f32; TILE],
    codes: &mut [u8],
) {
    let (n, codes) = (values.len().min(TILE), &mut codes[..values.len()]);
    for i in 0..n {
        let quotient = match HOW {
            MULTIPLIES => values[i] * factors[i],
            DIVIDES => values[i] / factors[i],
            _ => quotient(values[i], scales[i], factors[i]),
        };
        let code = if SMALL {
            E4m3::cast_small(quotient)
        } else {
            E4m3::cast(quotient)
        };
        codes[i] = (if scales[i].is_nan() { E4m3::NAN } else { code }) as u8;
    }
}
