//! The Node-API face of `minke-kernels`. Thin on purpose: it decodes arguments, hands them to a queue and
//! settles promises; it computes nothing. Every function is typed once more in
//! src/tensor/backend/native/addon.ts, which is the only importer.

pub mod message;

use std::sync::Arc;
use std::time::Duration;

use message::{NativeEndpoint, NativePool};
use minke_kernels::isa::{Isa, cpu_features};
use minke_kernels::message::Foreign;
use minke_kernels::ops;
use minke_kernels::peak::{self, Kind};
use minke_kernels::queue::{Failure, Queue};
use napi::bindgen_prelude::{BigInt, Float64Array, JsObjectValue, Object, Uint8Array};
use napi::{Env, Error, JsValue, Result};
use napi_derive::napi;

/// What this build and this machine can do.
#[napi(object)]
pub struct Info {
    pub version: String,
    /// Instruction sets that kernels can use here, best first.
    pub isas: Vec<String>,
    pub cpu_features: Vec<String>,
    /// Threads that can run at once.
    pub parallelism: u32,
    /// Names of the ops in code order: the first word of a command is an index into this list.
    pub ops: Vec<String>,
}

#[napi]
pub fn info() -> Info {
    Info {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        isas: Isa::usable()
            .into_iter()
            .map(|isa| isa.name().to_owned())
            .collect(),
        cpu_features: cpu_features().into_iter().map(str::to_owned).collect(),
        parallelism: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        ops: ops::table().iter().map(|(name, _)| (*name).to_owned()).collect(),
    }
}

/// Gives back to the system what malloc keeps of freed memory, between blocks in use too; false where the C library
/// has no way to be asked.
#[napi]
pub fn trim_heap() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> i32;
        }
        // SAFETY: glibc's own function, safe on any thread at any time; it touches free memory only.
        unsafe { malloc_trim(0) == 1 }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

#[napi(object)]
pub struct QueueOptions {
    pub threads: u32,
    /// A lower instruction set than the best, for tests and comparisons.
    pub isa: Option<String>,
    /// Address space of the arena; pages are committed when first touched.
    pub reserve_bytes: f64,
}

/// A queue and the array through which JavaScript hands it commands.
#[napi]
pub struct NativeQueue {
    queue: Option<Queue>,
    words: Float64Array,
    isa: Isa,
}

#[napi]
pub fn create_queue(
    options: QueueOptions,
    words: Float64Array,
    pool: Option<&NativePool>,
) -> Result<NativeQueue> {
    let isa = match &options.isa {
        None => Isa::detect(),
        Some(name) => Isa::from_name(name).and_then(Isa::force).ok_or_else(|| {
            let usable: Vec<_> = Isa::usable().into_iter().map(Isa::name).collect();
            Error::from_reason(format!(
                "instruction set {name:?} is not usable here; usable: {}",
                usable.join(", ")
            ))
        })?,
    };
    let bytes = whole_number(options.reserve_bytes, "reserveBytes")?;
    let queue = match pool {
        None => Queue::new(ops::table(), options.threads.max(1) as usize, isa, bytes),
        Some(pool) => Queue::with_pool(ops::table(), pool.shared(), isa, bytes),
    }
    .map_err(Error::from_reason)?;
    Ok(NativeQueue {
        queue: Some(queue),
        words,
        isa,
    })
}

#[napi]
impl NativeQueue {
    /// Name of the instruction set that this queue's kernels use.
    #[napi(getter)]
    pub fn isa(&self) -> &'static str {
        self.isa.name()
    }

    /// Notes down the command in the first `length` words.
    #[napi]
    pub fn submit(&self, length: u32) -> Result<()> {
        let words = self
            .words
            .get(..length as usize)
            .ok_or_else(|| Error::from_reason(format!("{length} words of {}", self.words.len())))?;
        self.queue()?.submit(words);
        Ok(())
    }

    /// Notes down commands one after another, each behind the number of its words.
    #[napi]
    pub fn submit_list(&self, list: &[f64]) -> Result<()> {
        self.queue()?.submit_list(list).map_err(Error::from_reason)
    }

    /// Messages go through this rank of a hub from here on: no other queue's ever do.
    #[napi]
    pub fn connect(&self, endpoint: &NativeEndpoint) -> Result<()> {
        let (queue, endpoint) = (self.queue()?, endpoint.shared());
        endpoint.take().map_err(Error::from_reason)?;
        queue.connect(endpoint);
        Ok(())
    }

    /// Messages go through the table at this address (native/mpi/transport.h) from here on.
    #[napi]
    pub fn connect_table(&self, address: BigInt) -> Result<()> {
        let (negative, value, lossless) = address.get_u64();
        if negative || !lossless {
            return Err(Error::from_reason(
                "a table's address is a whole number of 64 bits",
            ));
        }
        // SAFETY: JavaScript hands on what the transport's own addon gave it; a table of another version is refused.
        let foreign = unsafe { Foreign::from_address(value as usize) }.map_err(Error::from_reason)?;
        self.queue()?.connect(Arc::new(foreign));
        Ok(())
    }

    /// Copies `bytes` now, and into the arena in order.
    #[napi]
    pub fn write(&self, address: f64, bytes: &[u8]) -> Result<()> {
        let address = whole_number(address, "address")?;
        self.queue()?.write(address, bytes).map_err(Error::from_reason)
    }

    /// A promise of a copy of `length` bytes as they are when the queue gets there.
    #[napi(ts_return_type = "Promise<Uint8Array>")]
    pub fn read<'env>(&self, env: &'env Env, address: f64, length: f64) -> Result<Object<'env>> {
        let address = whole_number(address, "address")?;
        let length = whole_number(length, "length")?;
        let queue = self.queue()?;
        // Before the promise exists: one that nobody settles would keep the process alive.
        queue.check_range(address, length).map_err(Error::from_reason)?;
        let (deferred, promise) = env.create_deferred()?;
        let done = move |result: std::result::Result<Vec<u8>, Arc<Failure>>| {
            deferred.resolve(move |env| match result {
                Ok(bytes) => Ok(Uint8Array::from(bytes)),
                Err(failure) => Err(failure_error(&env, &failure)),
            });
        };
        queue.read(address, length, done).map_err(Error::from_reason)?;
        Ok(promise)
    }

    /// A promise that everything before has run.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn drain<'env>(&self, env: &'env Env) -> Result<Object<'env>> {
        let queue = self.queue()?;
        let (deferred, promise) = env.create_deferred()?;
        queue.drain(move |result| {
            deferred.resolve(move |env| result.map_err(|failure| failure_error(&env, &failure)));
        });
        Ok(promise)
    }

    /// A promise of the register peak in multiplications and additions a second, measured in order on the queue's
    /// threads.
    #[napi(ts_return_type = "Promise<number>")]
    pub fn peak<'env>(
        &self,
        env: &'env Env,
        kind: String,
        seconds: f64,
        threads: u32,
    ) -> Result<Object<'env>> {
        let kind = Kind::from_name(&kind)
            .ok_or_else(|| Error::from_reason(format!("peak of {kind:?}: there are f32 and bf16")))?;
        let time = Duration::try_from_secs_f64(seconds)
            .map_err(|why| Error::from_reason(format!("seconds = {seconds}: {why}")))?;
        let queue = self.queue()?;
        let (deferred, promise) = env.create_deferred()?;
        queue.call(move |ctx| {
            let flops = peak::measure(ctx.pool, ctx.isa, kind, threads as usize, time);
            deferred.resolve(move |_| Ok(flops));
        });
        Ok(promise)
    }

    /// Switches the trace on (and empties it) or off.
    #[napi]
    pub fn set_trace(&self, on: bool) -> Result<()> {
        self.queue()?.set_trace(on);
        Ok(())
    }

    /// Op code, begin and end in nanoseconds since the trace was switched on, for each command since the last
    /// call.
    #[napi]
    pub fn take_trace(&self) -> Result<Float64Array> {
        let spans = self.queue()?.take_trace();
        let numbers: Vec<f64> = spans
            .iter()
            .flat_map(|span| [span.code as f64, span.begin as f64, span.end as f64])
            .collect();
        Ok(Float64Array::from(numbers))
    }

    /// Ends the queue after the command that runs now, and gives its memory back; what has not begun is rejected.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn dispose<'env>(&mut self, env: &'env Env) -> Result<Object<'env>> {
        let (deferred, promise) = env.create_deferred()?;
        let queue = self.queue.take();
        if let Some(queue) = &queue {
            queue.close();
        }
        // Joining waits for the running command, which is not for JavaScript's thread to do.
        let join = move || {
            drop(queue);
            deferred.resolve(|_| Ok(()));
        };
        std::thread::Builder::new()
            .name("minke-dispose".to_owned())
            .spawn(join)
            .map_err(|why| Error::from_reason(format!("cannot start a thread to join the queue: {why}")))?;
        Ok(promise)
    }

    fn queue(&self) -> Result<&Queue> {
        self.queue
            .as_ref()
            .ok_or_else(|| Error::from_reason("the queue is disposed"))
    }
}

fn whole_number(value: f64, name: &str) -> Result<usize> {
    if (0.0..=9_007_199_254_740_992.0).contains(&value) && value.fract() == 0.0 {
        Ok(value as usize)
    } else {
        Err(Error::from_reason(format!(
            "{name} = {value} is not a number of bytes"
        )))
    }
}

/// A JavaScript error with the failure's parts as properties: `op`, `param`, `command`, `words`.
fn failure_error(env: &Env, failure: &Failure) -> Error {
    let build = || -> Result<Error> {
        let mut error = env.create_error(Error::from_reason(failure.text()))?;
        error.set_named_property("op", failure.op.as_str())?;
        error.set_named_property("param", failure.param)?;
        error.set_named_property("reason", failure.message.as_str())?;
        error.set_named_property("command", failure.command as f64)?;
        error.set_named_property("words", failure.words.clone())?;
        Ok(Error::from(error.to_unknown()))
    };
    build().unwrap_or_else(|why| why)
}
