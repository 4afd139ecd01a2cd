//! What a command may say, and what is refused.

use super::*;

#[repr(align(64))]
struct Page([u8; 1024]);

fn decode<T>(words: &[f64], f: impl FnOnce(&mut Args) -> Result<T, KernelError>) -> Result<T, KernelError> {
    let mut page = Page([0; 1024]);
    let memory = Memory::new(&mut page.0);
    let ledger = Ledger::default();
    f(&mut Args::new(&memory, words, &ledger))
}

#[test]
fn operands_then_numbers_are_read_in_order() {
    decode(&[64.0, 1.0, -1.0, 0.0, 128.0, 3.0, 7.0, 0.5], |a| {
        let x = a.floats("x")?;
        assert!(a.f32s_optional("gain")?.is_none());
        let ids = a.i32s("ids")?;
        let n = a.usize("n")?;
        assert_eq!((n, a.f32("eps")?), (7, 0.5));
        a.end()?;
        assert_eq!(x.slice(n)?.len(), 7);
        assert_eq!(ids.i32s(n)?, &[0; 7]);
        Ok(())
    })
    .unwrap();
}

#[test]
fn an_operand_that_ends_outside_the_arena_is_refused_by_name() {
    let end = decode(&[960.0, 0.0], |a| a.f32s("y")?.f32s_mut(17).map(|_| ())).unwrap_err();
    assert_eq!(end.param, Some("y"));
    assert!(end.message.contains("17 numbers of f32 at address 960"), "{end}");
    let huge = decode(&[0.0, 0.0], |a| a.f32s("y")?.f32s_mut(usize::MAX).map(|_| ()));
    assert!(huge.is_err());
}

#[test]
fn wrong_dtypes_addresses_counts_and_lengths_of_command_are_refused() {
    assert!(decode(&[0.0, 3.0], |a| a.floats("x").map(|_| ())).is_err());
    assert!(decode(&[0.0, 9.0], |a| a.any("x").map(|_| ())).is_err());
    assert!(decode(&[-1.0, 0.0], |a| a.floats("x").map(|_| ())).is_err());
    assert!(decode(&[33.0, 0.0], |a| a.floats("x").map(|_| ())).is_err());
    assert!(decode(&[f64::NAN, 0.0], |a| a.floats("x").map(|_| ())).is_err());
    assert!(decode(&[1.5], |a| a.usize("n").map(|_| ())).is_err());
    assert!(decode(&[2.0], |a| a.flag("round").map(|_| ())).is_err());
    assert!(decode(&[], |a| a.f64("eps").map(|_| ())).is_err());
    assert!(decode(&[1.0, 2.0], |a| a.usize("n").and(a.end())).is_err());
}

#[test]
fn a_shape_whose_product_would_wrap_around_is_refused() {
    assert_eq!(elements(&[3, 5, 7]).unwrap(), 105);
    assert_eq!(elements(&[0, 99]).unwrap(), 0);
    assert!(
        elements(&[1 << 40, 1 << 40])
            .unwrap_err()
            .message
            .contains("too large")
    );
}

#[cfg(debug_assertions)]
#[test]
fn operands_that_overlap_in_part_are_refused_when_one_is_written() {
    let overlap = decode(&[0.0, 0.0, 64.0, 0.0], |a| {
        let (x, y) = (a.floats("x")?, a.floats("y")?);
        x.slice(32)?;
        y.slice_mut(32).map(|_| ())
    });
    assert!(overlap.unwrap_err().message.contains("overlap operand x"));
    let both_read = decode(&[0.0, 0.0, 64.0, 0.0], |a| {
        let (x, y) = (a.floats("x")?, a.floats("y")?);
        x.slice(32)?;
        y.slice(32).map(|_| ())
    });
    assert!(both_read.is_ok());
}

#[test]
fn twelve_bit_numbers_take_three_bytes_a_pair_at_any_address() {
    decode(&[67.0, 5.0], |a| {
        let codes = a.codes("codes")?;
        assert_eq!(codes.dtype(), Dtype::E5m6);
        assert_eq!((codes.bytes(8)?.len(), codes.bytes(0)?.len()), (12, 0));
        assert!(codes.bytes(638)?.len() == 957 && codes.bytes(640).is_err());
        assert!(codes.bytes(usize::MAX).is_err());
        Ok(())
    })
    .unwrap();
    assert!(decode(&[0.0, 5.0], |a| a.f8s("codes").map(|_| ())).is_err());
}
