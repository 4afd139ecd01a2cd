use minke_kernels::args::{Args, Ledger, Memory};
use minke_kernels::isa::Isa;
use minke_kernels::ops::{Ctx, table};
use minke_kernels::pool::Pool;
use std::time::Instant;
fn main() {
    let isa = Isa::usable().into_iter().next().unwrap();
    let threads: usize = std::env::args().nth(1).and_then(|x| x.parse().ok()).unwrap_or(1);
    let secs: f64 = std::env::args()
        .nth(2)
        .and_then(|x| x.parse().ok())
        .unwrap_or(0.5);
    let pool = Pool::new(threads);
    let ctx = Ctx { pool: &pool, isa };
    let lines = |f: usize| f.next_multiple_of(16);
    let pe = |n: usize, k: usize| n.div_ceil(32) * 32 * k.next_multiple_of(2);
    let mut total = 0.0;
    for (count, b, nn, kk) in [
        (6, 8, 96, 128),
        (3, 8, 128, 96),
        (6, 1, 96, 128),
        (3, 1, 128, 96),
        (2, 1, 352, 128),
        (1, 1, 128, 352),
        (4, 1, 48, 128),
        (4, 1, 96, 48),
        (4, 1, 40, 128),
        (4, 1, 128, 32),
        (4, 1, 128, 64),
        (1, 1, 128, 256),
    ] {
        let (n, k) = (nn.min(kk), nn.max(kk));
        let ws = 2 * lines(n * k) + 2 * lines(n * n) + pe(n, k).max(pe(k, n));
        let size = b * nn * kk;
        let mut bytes = vec![0u64; (size * 12 + b * (pe(nn, kk) + pe(kk, nn)) * 2 + b * ws * 4) / 8 + 4096];
        let base = (bytes.as_mut_ptr() as usize).next_multiple_of(64) as *mut u8;
        let mut used = 0usize;
        let mut room = |len: usize| {
            let at = used;
            used = (at + len).next_multiple_of(64);
            at as f64
        };
        let (w, g, m) = (room(size * 4), room(size * 4), room(size * 4));
        let (p, t, s) = (
            room(b * pe(nn, kk) * 2),
            room(b * pe(kk, nn) * 2),
            room(b * ws * 4),
        );
        let fill = |at: f64| {
            for i in 0..size {
                unsafe {
                    base.add(at as usize)
                        .cast::<f32>()
                        .add(i)
                        .write(((i * 7919) % 2003) as f32 / 1001.5 - 1.0)
                }
            }
        };
        fill(w);
        fill(g);
        fill(m);
        let words = [
            w, 0.0, g, 0.0, m, 0.0, -1.0, -1.0, p, 1.0, t, 1.0, s, 0.0, b as f64, nn as f64, kk as f64, 1e-5,
            0.95, 0.1, 1.0,
        ];
        let table = table();
        let (_, kernel) = table.iter().find(|(name, _)| *name == "muon").unwrap();
        let memory = unsafe { Memory::from_raw(base, bytes.len() * 8 - 64) };
        let mut best = 1e9f64;
        let end = Instant::now();
        while end.elapsed().as_secs_f64() < secs {
            fill(g);
            let t0 = Instant::now();
            let ledger = Ledger::default();
            kernel(&ctx, &mut Args::new(&memory, &words, &ledger)).unwrap();
            best = best.min(t0.elapsed().as_secs_f64());
        }
        let flops = b as f64 * 5.0 * (4.0 * (n * n * k) as f64 + 2.0 * (n * n * n) as f64);
        println!(
            "{count} x [{b}, {nn}, {kk}] {:8.1} us {:6.1} GFLOP/s",
            best * 1e6,
            flops / best / 1e9
        );
        total += best * count as f64;
    }
    println!("total {:.2} ms", total * 1e3);
}
