//! Speed of linearCrossEntropy at the shape of `nano`, with and without its gradients, beside the register peak.
//!
//! ```text
//! cargo run --release -p minke-kernels --example loss_bench -- [rounds] [filter]
//! ```
//!
//! Wall clock, all variants in turn, best and median of many rounds. Between two calls 24 MB of other memory is
//! written, as the ops between two heads do: no operand lies in a second cache at the start.

use std::time::{Duration, Instant};

use minke_kernels::arena::Arena;
use minke_kernels::args::{Args, Ledger, Memory};
use minke_kernels::isa::Isa;
use minke_kernels::ops::{self, Ctx, Kernel};
use minke_kernels::peak::{self, Kind};
use minke_kernels::pool::Pool;

/// Tokens, width, vocabulary.
const SHAPE: (usize, usize, usize) = (2048, 256, 4096);
/// Bytes written between two calls.
const BETWEEN: usize = 24 << 20;

#[derive(Clone, Copy)]
struct Variant {
    name: &'static str,
    dx: bool,
    dw: bool,
}

const VARIANTS: [Variant; 4] = [
    Variant {
        name: "loss",
        dx: false,
        dw: false,
    },
    Variant {
        name: "loss and dx",
        dx: true,
        dw: false,
    },
    Variant {
        name: "loss and dw",
        dx: false,
        dw: true,
    },
    Variant {
        name: "loss, dx, dw",
        dx: true,
        dw: true,
    },
];

/// Room for all operands.
const ARENA: usize = 64 << 20;

/// Operands laid out one after another in a queue's memory (whose pages are large), and the words of one command over them.
struct Command {
    arena: Arena,
    used: usize,
    words: Vec<f64>,
}

impl Command {
    fn new(variant: Variant, is_bf16: bool) -> Command {
        let (t, d, v) = SHAPE;
        let (code, size) = if is_bf16 { (1.0, 2) } else { (0.0, 4) };
        let mut command = Command {
            arena: Arena::reserve(ARENA).expect("memory"),
            used: 0,
            words: Vec::new(),
        };
        let x = command.operand(t * d * size, code, true);
        let panels = command.operand(v * d * size, code, true);
        let panels_t = command.operand(v * d * size, code, variant.dx);
        let targets = command.operand(t * 4, 3.0, true);
        for address in [x, panels, panels_t] {
            command.fill_floats(address, if address == x { t * d } else { v * d }, is_bf16);
        }
        for token in 0..t {
            let id = (token * 31 % v) as i32;
            command.write(targets as usize + token * 4, &id.to_le_bytes());
        }
        command.operand(t * 4, 0.0, true);
        command.operand(t * 4, 3.0, true);
        command.operand(t * d * size, code, variant.dx);
        command.operand(v * d * 4, 0.0, variant.dw);
        command.operand(t.min(512) * (v + d) * 4, 0.0, true);
        command
            .words
            .extend([t as f64, d as f64, v as f64, 1.0 / t as f64]);
        command
    }

    /// Room for an operand, and its words; -1 for an absent one.
    fn operand(&mut self, bytes: usize, code: f64, present: bool) -> f64 {
        let address = if present { self.used as f64 } else { -1.0 };
        self.words.extend([address, code]);
        if present {
            self.used += bytes.next_multiple_of(64);
        }
        address
    }

    fn fill_floats(&mut self, address: f64, count: usize, is_bf16: bool) {
        if address < 0.0 {
            return;
        }
        for i in 0..count {
            let value = ((i * 7919 % 2003) as f32 / 1001.5 - 1.0) * 0.2;
            let bits = value.to_bits();
            match is_bf16 {
                true => self.write(address as usize + i * 2, &((bits >> 16) as u16).to_le_bytes()),
                false => self.write(address as usize + i * 4, &bits.to_le_bytes()),
            }
        }
    }

    fn write(&mut self, at: usize, value: &[u8]) {
        self.bytes()[at..at + value.len()].copy_from_slice(value);
    }

    fn bytes(&mut self) -> &mut [u8] {
        let start = self.arena.range(0, self.used).expect("operands inside the arena");
        // SAFETY: inside the arena, which this command alone uses.
        unsafe { std::slice::from_raw_parts_mut(start, self.used) }
    }

    fn run(&mut self, kernel: Kernel, ctx: &Ctx) -> Duration {
        let words = self.words.clone();
        let memory = Memory::new(self.bytes());
        let ledger = Ledger::default();
        let start = Instant::now();
        kernel(ctx, &mut Args::new(&memory, &words, &ledger)).expect("a legal command");
        start.elapsed()
    }
}

fn race(rounds: usize, isa: Isa, threads: usize, is_bf16: bool) {
    let (t, d, v) = SHAPE;
    let pool = Pool::new(threads);
    let ctx = Ctx::new(&pool, isa);
    let (_, kernel) = ops::table()
        .into_iter()
        .find(|(name, _)| *name == "linearCrossEntropy")
        .expect("the op");
    let mut commands = VARIANTS.map(|variant| Command::new(variant, is_bf16));
    let mut times = VARIANTS.map(|_| Vec::new());
    let mut other = vec![0u8; BETWEEN];
    let kind = if is_bf16 { Kind::Bf16 } else { Kind::F32 };
    let mut ceiling = 0.0f64;
    for round in 0..rounds {
        ceiling = ceiling.max(peak::measure(&pool, isa, kind, threads, Duration::from_millis(2)));
        for (command, times) in commands.iter_mut().zip(&mut times) {
            std::hint::black_box(&mut other).fill(round as u8);
            times.push(command.run(kernel, &ctx).as_secs_f64());
        }
    }
    for (variant, times) in VARIANTS.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        let products = 1 + usize::from(variant.dx) + usize::from(variant.dw);
        let flops = (2 * products * t * d * v) as f64;
        println!(
            "{:<13} {kind:?} {isa:<10} {threads} thr {:>7.2} ms, median {:>7.2}  {:>6.0} GFLOP/s, {:>4.1} % of {:.0}",
            variant.name,
            times[0] * 1e3,
            times[times.len() / 2] * 1e3,
            flops / times[0] / 1e9,
            100.0 * flops / times[0] / ceiling,
            ceiling / 1e9
        );
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rounds = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(30);
    let filter = arguments.next().unwrap_or_default();
    for isa in Isa::usable().into_iter().filter(|isa| *isa != Isa::Portable) {
        for (is_bf16, kind) in [(true, "bf16"), (false, "f32")] {
            for threads in [1, 2] {
                if format!("{isa} {kind} {threads}").contains(&filter) {
                    race(rounds, isa, threads, is_bf16);
                }
            }
        }
    }
}
