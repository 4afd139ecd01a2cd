// pause: the queue sleeps for a given time, as if a kernel of that length ran on another machine
//
// contract   src/tensor/ops/pause.ts
// limits     0 to 60 s; never shorter than asked for, longer by what the system takes to wake a thread
// threads    the queue's own, asleep: other queues of the pool and other processes compute meanwhile
// versions   v1 (this file)

//! Stands for a chunk of a pipeline where a machine has fewer cores than the pipeline has ranks.

use std::thread;
use std::time::Duration;

use crate::args::Args;
use crate::error::KernelError;
use crate::ops::{Ctx, Kernel};

pub const OPS: &[(&str, Kernel)] = &[("pause", pause)];

const LONGEST_MICROSECONDS: usize = 60_000_000;

fn pause(_: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let microseconds = a.usize("microseconds")?;
    a.end()?;
    if microseconds > LONGEST_MICROSECONDS {
        let message = format!("{microseconds} is more than {LONGEST_MICROSECONDS}");
        return Err(KernelError::new("microseconds", message));
    }
    thread::sleep(Duration::from_micros(microseconds as u64));
    Ok(())
}
