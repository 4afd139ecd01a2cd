//! planCopies: which tokens a unit of neighbouring experts is sent, once each; gatherRows: y[i] = x[rows[i]]
//!
//! contract   tensor/ops/moe/copies.ts
//! layout     offsets [E + 1], rows [R]: the token of each row, by expert, then by token · headers [U, E / U + 3] · bounds
//!            [U + 1] · tokens [C] · rowCopy [R] · copyRows [C, K], tokenCopies [T, K], -1 behind the last: all i32
//! limits     rows that are no token, more copies than C and more than K rows of a copy are refused; rows behind the last
//!            expert's and tokens behind the last copy are neither read nor written
//! tiling     planCopies one task, U * T + R steps; gatherRows about 32768 bytes per task
//! versions   v1 (this file)

use crate::args::{Args, Operand};
use crate::error::KernelError;
use crate::gemm::grouped::check_offsets;
use crate::ops::Ctx;
use crate::pointwise::rows::{count_rows, for_rows};
use crate::pool::Disjoint;

/// The lists of a plan that are wanted by some callers only.
struct Lists<'a> {
    copy_rows: Option<&'a mut [i32]>,
    token_copies: Option<&'a mut [i32]>,
    k: usize,
}

fn list<'a>(operand: Option<Operand<'a>>, len: usize) -> Result<Option<&'a mut [i32]>, KernelError> {
    operand.map(|operand| operand.i32s_mut(len)).transpose()
}

/// Puts `value` at the first free place of list `index`.
fn append(
    lists: &mut [i32],
    k: usize,
    index: usize,
    value: i32,
    name: &'static str,
) -> Result<(), KernelError> {
    let list = &mut lists[index * k..(index + 1) * k];
    match list.iter_mut().find(|place| **place < 0) {
        Some(place) => *place = value,
        None => {
            return Err(KernelError::new(
                name,
                format!("there are more than {k} of {index}"),
            ));
        }
    }
    Ok(())
}

/// The op: offsets, rows, headers, bounds, tokens, rowCopy, copyRows?, tokenCopies?; T, K, E, U, R, C.
pub fn plan(_ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (offsets, rows) = (a.i32s("offsets")?, a.i32s("rows")?);
    let (headers, bounds) = (a.i32s("headers")?, a.i32s("bounds")?);
    let (tokens, row_copy) = (a.i32s("tokens")?, a.i32s("rowCopy")?);
    let copy_rows = a.i32s_optional("copyRows")?;
    let token_copies = a.i32s_optional("tokenCopies")?;
    let (t, k, e, u) = (a.usize("T")?, a.usize("K")?, a.usize("E")?, a.usize("U")?);
    let (r, c) = (a.usize("R")?, a.usize("C")?);
    a.end()?;
    if u == 0 || !e.is_multiple_of(u) {
        return Err(KernelError::new(
            "U",
            format!("{e} experts are no {u} equal units"),
        ));
    }
    let (offsets, per_unit) = (offsets.i32s(e + 1)?, e / u);
    let r = check_offsets(offsets, r)?;
    let rows = rows.i32s(r)?;
    if let Some(bad) = rows.iter().find(|row| **row < 0 || **row as usize >= t) {
        return Err(KernelError::new("rows", format!("{bad} is no token of {t}")));
    }
    let headers = headers.i32s_mut(u * (per_unit + 3))?;
    let bounds = bounds.i32s_mut(u + 1)?;
    let (tokens, row_copy) = (tokens.i32s_mut(c)?, row_copy.i32s_mut(r)?);
    let mut lists = Lists {
        copy_rows: list(copy_rows, c * k)?,
        token_copies: list(token_copies, t * k)?,
        k,
    };
    for lists in [&mut lists.copy_rows, &mut lists.token_copies]
        .into_iter()
        .flatten()
    {
        lists.fill(-1);
    }
    // The copy of each token in the unit at hand: absent, wanted, or its number.
    let mut number = vec![-1i32; t];
    let mut copies = 0;
    for unit in 0..u {
        bounds[unit] = copies as i32;
        let own = &offsets[unit * per_unit..=(unit + 1) * per_unit];
        let (from, to) = (own[0] as usize, own[per_unit] as usize);
        for row in &rows[from..to] {
            number[*row as usize] = 0;
        }
        let first = copies;
        for (token, number) in number.iter_mut().enumerate().filter(|(_, number)| **number == 0) {
            if copies == c {
                return Err(KernelError::new(
                    "tokens",
                    format!("there is room for {c} copies only"),
                ));
            }
            tokens[copies] = token as i32;
            *number = (copies - first) as i32;
            if let Some(lists) = &mut lists.token_copies {
                append(lists, k, token, copies as i32, "tokenCopies")?;
            }
            copies += 1;
        }
        for row in from..to {
            row_copy[row] = number[rows[row] as usize];
            if let Some(copy_rows) = &mut lists.copy_rows {
                let copy = first + row_copy[row] as usize;
                append(copy_rows, lists.k, copy, row as i32, "copyRows")?;
            }
        }
        for row in &rows[from..to] {
            number[*row as usize] = -1;
        }
        let header = &mut headers[unit * (per_unit + 3)..(unit + 1) * (per_unit + 3)];
        for (place, offset) in header.iter_mut().zip(own) {
            *place = offset - own[0];
        }
        header[per_unit + 1] = 0;
        header[per_unit + 2] = (copies - first) as i32;
    }
    bounds[u] = copies as i32;
    Ok(())
}

/// The op: x, rows, count?, y; R, width. A row of -1 is zeros.
pub fn gather(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (x, rows) = (a.any("x")?, a.i32s("rows")?);
    let (count, y) = (a.i32s_optional("count")?, a.any("y")?);
    let (r, width) = (a.usize("R")?, a.usize("width")?);
    a.end()?;
    if x.dtype() != y.dtype() {
        let message = format!("is {}, x is {}", y.dtype().name(), x.dtype().name());
        return Err(KernelError::new("y", message));
    }
    let r = count_rows(count, r)?;
    let rows = rows.i32s(r)?;
    if let Some(bad) = rows.iter().find(|row| **row < -1) {
        return Err(KernelError::new("rows", format!("{bad} is no row of x")));
    }
    let needed = rows.iter().max().map_or(0, |most| (*most + 1) as usize);
    let x = x.bytes(needed * width)?;
    let y = y.bytes_mut(r * width)?;
    let bytes = y.len().checked_div(r).unwrap_or(0);
    let y = Disjoint::new(y);
    for_rows(ctx.pool, r, bytes, |from, to, _| {
        for (i, row) in rows.iter().enumerate().take(to).skip(from) {
            // SAFETY: tasks have rows of their own.
            let y = unsafe { y.part(i * bytes, bytes) };
            match usize::try_from(*row) {
                Ok(row) => y.copy_from_slice(&x[row * bytes..(row + 1) * bytes]),
                Err(_) => y.fill(0),
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Arena, Random, same_on_all_paths};
    use super::*;

    struct Planned {
        headers: Vec<i32>,
        bounds: Vec<i32>,
        tokens: Vec<i32>,
        row_copy: Vec<i32>,
        copy_rows: Vec<i32>,
        token_copies: Vec<i32>,
    }

    /// Rows by expert, then token, of ids [T, K] that ascend within a token.
    fn sorted(ids: &[i32], k: usize, experts: usize) -> (Vec<i32>, Vec<i32>) {
        let (mut offsets, mut rows) = (vec![0], Vec::new());
        for expert in 0..experts as i32 {
            rows.extend(
                (0..ids.len())
                    .filter(|slot| ids[*slot] == expert)
                    .map(|slot| (slot / k) as i32),
            );
            offsets.push(rows.len() as i32);
        }
        (offsets, rows)
    }

    fn run(offsets: &[i32], rows: &[i32], [t, k, u, c]: [usize; 4]) -> Result<Planned, KernelError> {
        let e = offsets.len() - 1;
        let mut planned = None;
        same_on_all_paths(|ctx| {
            let mut arena = Arena::new();
            let given = [arena.put_i32(offsets), arena.put_i32(rows)];
            let sizes = [u * (e / u + 3), u + 1, c, rows.len(), c * k, t * k];
            let made = sizes.map(|size| arena.garbage_i32(size));
            let operands: Vec<_> = given.into_iter().chain(made).collect();
            let numbers = [t, k, e, u, rows.len(), c].map(|n| n as f64);
            let result = arena.run(ctx, plan, &operands, &numbers);
            let [headers, bounds, tokens, row_copy, copy_rows, token_copies] = made.map(|at| arena.i32s(at));
            let shown = format!("{bounds:?} {headers:?}");
            planned = Some(result.map(|()| Planned {
                headers,
                bounds,
                tokens,
                row_copy,
                copy_rows,
                token_copies,
            }));
            shown
        });
        planned.unwrap()
    }

    #[test]
    fn every_unit_gets_each_of_its_tokens_once_and_every_row_knows_its_copy() {
        let mut random = Random::new(3);
        for (t, k, e, u) in [
            (1, 1, 1, 1),
            (9, 2, 4, 2),
            (40, 4, 16, 4),
            (30, 3, 8, 8),
            (5, 2, 6, 1),
        ] {
            let mut ids = Vec::new();
            for _ in 0..t {
                let mut all: Vec<i32> = (0..e as i32).collect();
                let mut own: Vec<i32> = (0..k).map(|_| all.swap_remove(random.below(all.len()))).collect();
                own.sort_unstable();
                ids.extend(own);
            }
            let (offsets, rows) = sorted(&ids, k, e);
            let c = t * k.min(u);
            let p = run(&offsets, &rows, [t, k, u, c]).unwrap();
            let per_unit = e / u;
            for unit in 0..u {
                let (first, last) = (p.bounds[unit] as usize, p.bounds[unit + 1] as usize);
                let wanted: Vec<i32> = (0..t)
                    .filter(|t| {
                        ids[t * k..(t + 1) * k]
                            .iter()
                            .any(|id| *id as usize / per_unit == unit)
                    })
                    .map(|t| t as i32)
                    .collect();
                assert_eq!(p.tokens[first..last], wanted);
                let header = &p.headers[unit * (per_unit + 3)..(unit + 1) * (per_unit + 3)];
                assert_eq!(header[per_unit + 1..], [0, wanted.len() as i32]);
                for expert in 0..=per_unit {
                    let base = offsets[unit * per_unit];
                    assert_eq!(header[expert], offsets[unit * per_unit + expert] - base);
                }
                for row in offsets[unit * per_unit] as usize..offsets[(unit + 1) * per_unit] as usize {
                    let copy = first + p.row_copy[row] as usize;
                    assert_eq!(p.tokens[copy], rows[row]);
                    assert!(p.copy_rows[copy * k..(copy + 1) * k].contains(&(row as i32)));
                }
            }
            for token in 0..t {
                let own = &p.token_copies[token * k..(token + 1) * k];
                let used: Vec<i32> = own.iter().copied().filter(|copy| *copy >= 0).collect();
                assert!(used.is_sorted() && used.iter().all(|copy| p.tokens[*copy as usize] == token as i32));
                assert!(own[used.len()..].iter().all(|copy| *copy == -1));
            }
        }
    }

    #[test]
    fn rows_that_are_no_token_and_copies_without_room_are_refused() {
        let error = |rows: &[i32], c| run(&[0, 2, 2], rows, [2, 1, 2, c]).err().map(|e| e.param);
        assert_eq!(error(&[0, 1], 2), None);
        assert_eq!(error(&[0, 1], 1), Some(Some("tokens")));
        assert_eq!(error(&[0, 2], 2), Some(Some("rows")));
        assert_eq!(error(&[0, 0], 2), Some(Some("copyRows")));
    }

    #[test]
    fn rows_are_gathered_byte_by_byte_up_to_the_count_and_minus_one_is_zeros() {
        let x: Vec<f32> = (0..6).map(|i| i as f32 + 0.5).collect();
        for half in [false, true] {
            let y = same_on_all_paths(|ctx| {
                let mut arena = Arena::new();
                let given = if half { arena.put_bf16(&x) } else { arena.put(&x) };
                let (rows, count) = (arena.put_i32(&[2, -1, 0, -7]), arena.put_i32(&[3]));
                let y = if half {
                    arena.put_bf16(&[9.0; 8])
                } else {
                    arena.put(&[9.0; 8])
                };
                arena
                    .run(ctx, gather, &[given, rows, count, y], &[4.0, 2.0])
                    .unwrap();
                let all = [given, rows, Arena::ABSENT, y];
                assert!(arena.run(ctx, gather, &all, &[4.0, 2.0]).is_err());
                arena.f32s(y)
            });
            assert_eq!(y, [4.5, 5.5, 0.0, 0.0, 0.5, 1.5, 9.0, 9.0]);
        }
    }
}
