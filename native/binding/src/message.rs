//! Several ranks in one process: the pool that their queues share, and the hub between them.

use std::sync::Arc;
use std::time::Duration;

use minke_kernels::message::{Endpoint, Hub, Link, Transport};
use minke_kernels::pool::Pool;
use napi::{Error, Result};
use napi_derive::napi;

/// Threads that several queues share.
#[napi]
pub struct NativePool {
    pool: Arc<Pool>,
}

#[napi]
pub fn create_pool(threads: u32) -> Result<NativePool> {
    let pool = Pool::try_new(threads.max(1) as usize)
        .map_err(|why| Error::from_reason(format!("cannot start {threads} threads: {why}")))?;
    Ok(NativePool { pool: Arc::new(pool) })
}

#[napi]
impl NativePool {
    #[napi(getter)]
    pub fn threads(&self) -> u32 {
        self.pool.threads() as u32
    }
}

impl NativePool {
    pub fn shared(&self) -> Arc<Pool> {
        Arc::clone(&self.pool)
    }
}

/// Carries messages between queues of this process.
#[napi]
pub struct NativeHub {
    hub: Arc<Hub>,
}

/// A link that the hub imitates.
#[napi(object)]
pub struct HubLink {
    pub latency_seconds: f64,
    pub bytes_per_second: f64,
}

#[napi]
pub fn create_hub(ranks: u32, timeout_seconds: f64, link: Option<HubLink>) -> Result<NativeHub> {
    let timeout = duration("timeoutSeconds", timeout_seconds)?;
    let link = link.map(paced).transpose()?;
    Ok(NativeHub {
        hub: Hub::new(ranks as usize, timeout, link),
    })
}

fn paced(link: HubLink) -> Result<Link> {
    Link::new(link.latency_seconds, link.bytes_per_second).map_err(Error::from_reason)
}

fn duration(name: &str, seconds: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|why| Error::from_reason(format!("{name} = {seconds}: {why}")))
}

#[napi]
impl NativeHub {
    #[napi(getter)]
    pub fn ranks(&self) -> u32 {
        self.hub.ranks() as u32
    }

    #[napi]
    pub fn endpoint(&self, rank: u32) -> Result<NativeEndpoint> {
        let endpoint = self.hub.endpoint(rank).map_err(Error::from_reason)?;
        Ok(NativeEndpoint {
            endpoint: Arc::new(endpoint),
        })
    }
}

/// One rank of a hub.
#[napi]
pub struct NativeEndpoint {
    endpoint: Arc<Endpoint>,
}

#[napi]
impl NativeEndpoint {
    #[napi(getter)]
    pub fn rank(&self) -> u32 {
        self.endpoint.rank()
    }

    /// Ends what the other ranks wait for, now and later.
    #[napi]
    pub fn abort(&self, why: String) {
        self.endpoint.abort(&why);
    }
}

impl NativeEndpoint {
    pub fn shared(&self) -> Arc<Endpoint> {
        Arc::clone(&self.endpoint)
    }
}
