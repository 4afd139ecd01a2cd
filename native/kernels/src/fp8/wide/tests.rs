use super::super::codec::{Code, E4m3, Rule};
use super::lanes::Lanes;
use super::tiles;
use crate::isa::Isa;
use crate::pool::FloatMode;

fn has_avx512() -> bool {
    Isa::Avx512Bf16.available()
}

/// Codes of x over the scale of its greatest, by both ways; NaN-free.
fn check(x: &[f32], rule: Rule) {
    let _mode = FloatMode::enter();
    let (mut codes, mut scales) = (vec![0; x.len()], [0.0]);
    // SAFETY: the processor has it.
    unsafe { tiles(x, x.len(), rule, &mut codes, &mut scales) };
    for (i, code) in codes.iter().enumerate() {
        let wanted = E4m3::cast_small(x[i] / scales[0]);
        assert_eq!(u32::from(*code), wanted, "{:e} / {:e}", x[i], scales[0]);
    }
}

/// All numbers whose code can depend on how a quotient by `scale` is rounded: neighbours of scale times the middle of two codes.
fn differing(scale: f32) -> usize {
    let high = 1.0 / scale;
    let low = (-scale).mul_add(high, 1.0) * high;
    let mut count = 0;
    for fifth in 16..32u8 {
        let near = f32::from(fifth) * scale;
        for step in 0..5 {
            let x = f32::from_bits(near.to_bits() + step - 2);
            let by_parts = x.mul_add(high, x * low);
            count += usize::from(E4m3::cast_small(by_parts) != E4m3::cast_small(x / scale));
        }
    }
    count
}

#[test]
fn quotients_by_two_parts_have_the_codes_of_a_division() {
    // Near the fractions of four bits two floats and the middle of codes come closest; a stride meets all others.
    // (All 2^23 fractions were tried once: none differs.)
    let near =
        (0..16u32).flat_map(|top| (0..1024).map(move |i| (top << 19).wrapping_add(i).wrapping_sub(512)));
    let strided = (0..1 << 23).step_by(1009);
    for fraction in near.chain(strided) {
        assert_eq!(
            differing(f32::from_bits(127 << 23 | fraction & 0x7f_ffff)),
            0,
            "{fraction:x}"
        );
    }
}

#[test]
fn blocks_of_any_width_have_the_plain_codes() {
    if !has_avx512() {
        return;
    }
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    for round in 0..3000 {
        let len = 1 + next() as usize % 128;
        // From far below the least code to the greatest, all in one tile; zeros of both signs.
        let x: Vec<f32> = (0..len)
            .map(|_| {
                let magnitude = ((100 + next() % 30) << 23) | (next() % (1 << 23));
                let magnitude = if next() % 16 == 0 { 0 } else { magnitude };
                f32::from_bits(((next() & 1) << 31) | magnitude)
            })
            .collect();
        let rule = Rule {
            power_of_two: round % 2 == 0,
            floor: [0.0, 1e-4][round / 2 % 2],
        };
        check(&x, rule);
        let narrow: Vec<u16> = x.iter().map(|v| crate::bf16::from_f32(*v)).collect();
        let wide: Vec<f32> = narrow.iter().map(|v| crate::bf16::to_f32(*v)).collect();
        check(&wide, rule);
        let (mut codes, mut scales) = ([vec![0; len], vec![0; len]], [[0.0]; 2]);
        // SAFETY: the processor has it.
        unsafe {
            tiles(&narrow, len, rule, &mut codes[0], &mut scales[0]);
            tiles(&wide, len, rule, &mut codes[1], &mut scales[1]);
        }
        assert!(codes[0] == codes[1] && scales[0] == scales[1], "{narrow:?}");
    }
}

#[test]
fn every_neighbour_has_one_lane() {
    fn check<T: Lanes>() {
        for register in 0..4 {
            for lane in 0..16 {
                let at = T::ORDER[T::neighbour(register, lane)];
                assert_eq!(usize::from(at), 4 * lane + register);
            }
        }
    }
    check::<u16>();
    check::<f32>();
}
