//! A transport behind a table of C functions, as in native/mpi/transport.h: how the MPI addon reaches a queue
//! without either library knowing the other.

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use super::Transport;

/// The table's only version.
pub const VERSION: u32 = 2;

/// Room for what a failed wait says.
const MESSAGE: usize = 1024;

/// `struct minke_transport`.
#[repr(C)]
pub struct Table {
    pub version: u32,
    pub ctx: *mut c_void,
    pub post_send: Option<unsafe extern "C" fn(*mut c_void, u64, u32, u32, *const c_void, u64) -> c_int>,
    pub post_receive: Option<unsafe extern "C" fn(*mut c_void, u64, u32, u32, *mut c_void, u64) -> c_int>,
    pub wait: Option<unsafe extern "C" fn(*mut c_void, u64, *mut c_char, u64) -> c_int>,
    pub fail: Option<unsafe extern "C" fn(*mut c_void, *const c_char)>,
    pub abort: Option<unsafe extern "C" fn(*mut c_void, *const c_char)>,
}

/// A checked table.
pub struct Foreign {
    ctx: *mut c_void,
    post_send: unsafe extern "C" fn(*mut c_void, u64, u32, u32, *const c_void, u64) -> c_int,
    post_receive: unsafe extern "C" fn(*mut c_void, u64, u32, u32, *mut c_void, u64) -> c_int,
    wait: unsafe extern "C" fn(*mut c_void, u64, *mut c_char, u64) -> c_int,
    fail: unsafe extern "C" fn(*mut c_void, *const c_char),
    abort: unsafe extern "C" fn(*mut c_void, *const c_char),
}

// SAFETY: the table's rules let any thread call `abort`, and the queue's thread alone calls the rest.
unsafe impl Send for Foreign {}
unsafe impl Sync for Foreign {}

impl Foreign {
    /// # Safety
    /// `address` is 0 or that of a table whose functions keep the rules of transport.h, and which outlives this.
    pub unsafe fn from_address(address: usize) -> Result<Foreign, String> {
        let table = address as *const Table;
        if table.is_null() || !table.is_aligned() {
            return Err(format!("{address:#x} is no address of a transport's table"));
        }
        // SAFETY: the caller's promise; the version comes first in every version.
        let version = unsafe { (*table).version };
        if version != VERSION {
            return Err(format!(
                "the transport's table has version {version}, this build knows {VERSION}"
            ));
        }
        // SAFETY: a table of our version.
        let table = unsafe { &*table };
        let complete = || {
            Some(Foreign {
                ctx: table.ctx,
                post_send: table.post_send?,
                post_receive: table.post_receive?,
                wait: table.wait?,
                fail: table.fail?,
                abort: table.abort?,
            })
        };
        complete().ok_or_else(|| "the transport's table lacks a function".to_owned())
    }

    /// A post that failed says why through a wait for its ticket.
    fn posted(&self, status: c_int, ticket: u64) -> Result<(), String> {
        match status {
            0 => Ok(()),
            _ => Err(self
                .wait(ticket)
                .err()
                .unwrap_or_else(|| format!("the transport refused a message ({status})"))),
        }
    }
}

impl Transport for Foreign {
    unsafe fn post_send(
        &self,
        ticket: u64,
        peer: u32,
        tag: u32,
        bytes: *const u8,
        len: usize,
    ) -> Result<(), String> {
        // SAFETY: the rules of transport.h, the caller's promise.
        let status = unsafe { (self.post_send)(self.ctx, ticket, peer, tag, bytes.cast(), len as u64) };
        self.posted(status, ticket)
    }

    unsafe fn post_receive(
        &self,
        ticket: u64,
        peer: u32,
        tag: u32,
        bytes: *mut u8,
        len: usize,
    ) -> Result<(), String> {
        // SAFETY: as above.
        let status = unsafe { (self.post_receive)(self.ctx, ticket, peer, tag, bytes.cast(), len as u64) };
        self.posted(status, ticket)
    }

    fn wait(&self, ticket: u64) -> Result<(), String> {
        let mut message = [0u8; MESSAGE];
        // SAFETY: the rules of transport.h; the buffer is as long as we say.
        let status = unsafe { (self.wait)(self.ctx, ticket, message.as_mut_ptr().cast(), MESSAGE as u64) };
        if status == 0 {
            return Ok(());
        }
        let text = CStr::from_bytes_until_nul(&message).map_or("".into(), CStr::to_string_lossy);
        Err(match &*text {
            "" => format!("the transport failed ({status}) and did not say why"),
            text => text.to_owned(),
        })
    }

    fn fail(&self, why: &str) {
        let why = c_text(why);
        // SAFETY: the rules of transport.h.
        unsafe { (self.fail)(self.ctx, why.as_ptr()) };
    }

    fn abort(&self, why: &str) {
        let why = c_text(why);
        // SAFETY: the rules of transport.h.
        unsafe { (self.abort)(self.ctx, why.as_ptr()) };
    }
}

fn c_text(why: &str) -> CString {
    CString::new(why.replace('\0', " ")).unwrap_or_default()
}
