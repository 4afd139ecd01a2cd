use super::*;
use crate::isa::Isa;
use crate::math;
use crate::pool::FloatMode;

const COUNT: usize = 64 * WIDTH;

/// Every operation of the trait on the same numbers, one after another.
#[inline(always)]
unsafe fn all_operations<V: Vector, const M: usize, const N: usize>(x: &[f32; COUNT], out: &mut Vec<u32>) {
    let mut put = |value: V| {
        let mut lanes = [0.0f32; WIDTH];
        unsafe { value.store(lanes.as_mut_ptr()) };
        out.extend(lanes.map(f32::to_bits));
    };
    for i in (0..COUNT - 2 * WIDTH).step_by(WIDTH) {
        let at = |k: usize| unsafe { V::load(x.as_ptr().add(i + k * WIDTH)) };
        let (a, b, c) = (at(0), at(1), at(2));
        put(a.mul_add(b, c));
        put(a.add(b));
        put(a.sub(b));
        put(a.mul(b));
        put(a.div(b));
        put(a.max(b));
        put(a.keep_from(i / WIDTH % 18, f32::NEG_INFINITY));
        put(a.keep_below(i / WIDTH % 18, 7.0));
        put(a.zero_where_below(b, 0.25));
        put(a.round_to_bf16());
        put(exp(a.mul(V::splat(20.0))));
    }
    let mut codes = [0u16; WIDTH];
    let mut square = [0.0f32; WIDTH * 20];
    unsafe {
        V::load(x.as_ptr()).store_bf16(codes.as_mut_ptr());
        put(V::load_bf16(codes.as_ptr()));
        V::transpose(x.as_ptr(), 24, square.as_mut_ptr(), 20);
    }
    out.extend(square.map(f32::to_bits));
}

vector_twins! {
    mod all_operations_twins = all_operations(x: &[f32; COUNT], out: &mut Vec<u32>)
}

fn sample() -> [f32; COUNT] {
    let mut x = [0.0; COUNT];
    for (i, v) in x.iter_mut().enumerate() {
        *v = (i as f32 * 0.618_034).fract() * 4.0 - 2.2;
    }
    x[3] = f32::NAN;
    x[WIDTH + 5] = f32::NEG_INFINITY;
    x[2 * WIDTH + 7] = f32::INFINITY;
    x
}

fn run(isa: Isa) -> Vec<u32> {
    let mut out = Vec::new();
    // SAFETY: plain slices; the set is usable.
    unsafe { all_operations_twins::call(isa, &sample(), &mut out) };
    // Which NaN comes out is the processor's choice.
    out.iter()
        .map(|bits| {
            if f32::from_bits(*bits).is_nan() {
                0x7fc0_0000
            } else {
                *bits
            }
        })
        .collect()
}

#[test]
fn every_operation_has_the_same_bits_on_every_instruction_set() {
    let expected = run(Isa::Portable);
    for isa in Isa::usable() {
        assert!(run(isa) == expected, "{isa}");
    }
}

#[test]
fn a_transposed_square_has_its_columns_as_rows() {
    let x = sample();
    let mut square = [0.0f32; WIDTH * 20];
    unsafe { Array::transpose(x.as_ptr(), 24, square.as_mut_ptr(), 20) };
    for r in 0..WIDTH {
        for c in 0..WIDTH {
            assert_eq!(square[c * 20 + r].to_bits(), x[r * 24 + c].to_bits());
        }
    }
}

#[test]
fn exp_has_the_bits_of_the_common_exp_for_every_softmax_argument() {
    let _flushing = FloatMode::enter();
    let mut lanes = [0.0f32; WIDTH];
    let check = |x: f32, lanes: &mut [f32; WIDTH]| {
        unsafe { exp(Array::splat(x)).store(lanes.as_mut_ptr()) };
        assert_eq!(lanes[0].to_bits(), math::exp(x).to_bits(), "{x:e}");
    };
    for i in 0..400_000 {
        check(-87.4 + i as f32 * (90.0 / 400_000.0), &mut lanes);
    }
    // All floats around the cut where results become denormal.
    let cut = (-87.336_54_f32).to_bits();
    for bits in cut - 2000..cut + 2000 {
        check(f32::from_bits(bits), &mut lanes);
    }
    for x in [0.0, -0.0, -1e-30, -1000.0, f32::MIN, f32::NEG_INFINITY] {
        check(x, &mut lanes);
    }
    unsafe { exp(Array::splat(f32::NAN)).store(lanes.as_mut_ptr()) };
    assert!(lanes[0].is_nan());
}
