// postSend, postReceive, awaitMessages: bytes to and from other ranks, begun by one command and awaited by another
//
// contract   src/tensor/ops/message.ts; what carries the bytes: `Transport` below
// layout     x, y [rows, width], row-major; without offsets rows begin..end, else rows offsets[begin]..offsets[end]
// dtype      any; the bytes travel as they lie, without a header
// limits     no bytes and a message to oneself are legal; the length must be what the receiver posted
// threads    the queue's own, never the pool's: a wait sleeps, so that other queues of the pool compute meanwhile
// versions   v1 (this file)

//! Messages between ranks as commands. Reading order: this file, `line` (what a queue knows of its transport),
//! `hub` (ranks of one process), `link` (how long its messages take, if they are to take time), `foreign` (a library behind a C table, as MPI).

mod foreign;
mod hub;
mod line;
mod link;
#[cfg(test)]
mod tests;

pub use foreign::Foreign;
pub use hub::{Endpoint, Hub};
pub use line::Line;
pub use link::Link;

use crate::args::{Args, Operand, elements};
use crate::error::KernelError;
use crate::ops::{Ctx, Kernel};

pub const OPS: &[(&str, Kernel)] = &[
    ("postSend", post_send),
    ("postReceive", post_receive),
    ("awaitMessages", await_messages),
];

/// Carries messages from and to one rank. Posts only begin; what was posted under a ticket is done when a wait
/// for it returns. Messages of one (sender, receiver, tag) arrive in the order of their posts.
pub trait Transport: Send + Sync {
    /// # Safety
    /// `bytes..bytes + len` stays readable until a wait for the ticket, or `abort`, has returned.
    unsafe fn post_send(
        &self,
        ticket: u64,
        peer: u32,
        tag: u32,
        bytes: *const u8,
        len: usize,
    ) -> Result<(), String>;

    /// # Safety
    /// `bytes..bytes + len` is nobody else's until a wait for the ticket, or `abort`, has returned.
    unsafe fn post_receive(
        &self,
        ticket: u64,
        peer: u32,
        tag: u32,
        bytes: *mut u8,
        len: usize,
    ) -> Result<(), String>;

    /// Sleeps until all of the ticket is done; at once if nothing was posted under it.
    fn wait(&self, ticket: u64) -> Result<(), String>;

    /// Tells the peers that this rank cannot go on, and returns: who drives the queue shall hear of it too. On the
    /// queue's thread. If messages are open, an abort follows before their memory goes.
    fn fail(&self, why: &str) {
        self.abort(why);
    }

    /// Tells the peers that this rank cannot go on, and ends a wait that is under way. On any thread; the first
    /// reason counts.
    fn abort(&self, why: &str);
}

/// What a message is posted with, and which rows of its operand it is.
struct Post {
    ticket: u64,
    peer: u32,
    tag: u32,
    rows: usize,
    width: usize,
    from: usize,
    to: usize,
}

fn post_send(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (x, offsets) = (a.any("x")?, a.i32s_optional("offsets")?);
    let post = decode(a, offsets)?;
    let all = x.bytes(elements(&[post.rows, post.width])?)?;
    let (start, end) = post.byte_range(&x)?;
    let bytes = &all[start..end];
    let line = line(ctx)?;
    // SAFETY: the contract in JavaScript keeps the tensor's memory until the await is enqueued, and a queue whose
    // await never comes aborts before its arena goes.
    unsafe { line.post_send(post.ticket, post.peer, post.tag, bytes.as_ptr(), bytes.len()) }
        .map_err(KernelError::command)
}

fn post_receive(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (y, offsets) = (a.any("y")?, a.i32s_optional("offsets")?);
    let post = decode(a, offsets)?;
    let all = y.bytes_mut(elements(&[post.rows, post.width])?)?;
    let (start, end) = post.byte_range(&y)?;
    let bytes = &mut all[start..end];
    let line = line(ctx)?;
    // SAFETY: as in `post_send`; nothing enqueued before the await touches a tensor that is being received.
    unsafe { line.post_receive(post.ticket, post.peer, post.tag, bytes.as_mut_ptr(), bytes.len()) }
        .map_err(KernelError::command)
}

fn await_messages(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let ticket = a.usize("ticket")? as u64;
    a.end()?;
    line(ctx)?.wait(ticket).map_err(KernelError::command)
}

fn line<'a>(ctx: &'a Ctx) -> Result<&'a Line, KernelError> {
    ctx.transport
        .as_deref()
        .ok_or_else(|| KernelError::command("the queue is not connected to other ranks"))
}

fn decode(a: &mut Args, offsets: Option<Operand>) -> Result<Post, KernelError> {
    let ticket = a.usize("ticket")? as u64;
    let (peer, tag) = (u32_of(a, "peer")?, u32_of(a, "tag")?);
    let (rows, width) = (a.usize("rows")?, a.usize("width")?);
    let (begin, end) = (a.usize("begin")?, a.usize("end")?);
    a.end()?;
    let (from, to) = match offsets {
        None => (begin as i64, end as i64),
        Some(offsets) => {
            let offsets = offsets.i32s(begin.max(end) + 1)?;
            (i64::from(offsets[begin]), i64::from(offsets[end]))
        }
    };
    if from < 0 || to < from || to > rows as i64 {
        let message = format!("rows {from} to {to} are no range of {rows} rows");
        return Err(KernelError::command(message));
    }
    Ok(Post {
        ticket,
        peer,
        tag,
        rows,
        width,
        from: from as usize,
        to: to as usize,
    })
}

fn u32_of(a: &mut Args, name: &'static str) -> Result<u32, KernelError> {
    let value = a.usize(name)?;
    u32::try_from(value).map_err(|_| KernelError::new(name, format!("{value} is beyond 2^32 - 1")))
}

impl Post {
    /// The rows within the operand's bytes.
    fn byte_range(&self, operand: &Operand) -> Result<(usize, usize), KernelError> {
        let at = |row: usize| operand.dtype().bytes(row * self.width);
        at(self.from)
            .zip(at(self.to))
            .ok_or_else(|| KernelError::command("the rows lie beyond every address"))
    }
}
