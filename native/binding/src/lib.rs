//! The Node-API face of `minke-kernels`. Thin on purpose: it decodes arguments, hands them to a queue and
//! settles promises; it computes nothing.

use napi_derive::napi;

/// Names of the ops in code order: the number that a command starts with is an index into this list.
#[napi]
pub fn op_names() -> Vec<String> {
    minke_kernels::ops::table()
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect()
}
