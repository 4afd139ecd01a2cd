//! Router, dispatch plan, combine and balance. A token's experts are always in ascending order.

mod balance;
mod bias;
mod combine;
mod copies;

mod dispatch;
mod mixture;
mod router;
mod router_backward;
mod select;
#[cfg(test)]
mod testing;

use crate::ops::Kernel;

/// This family's ops, in the order of their codes.
pub const OPS: &[(&str, Kernel)] = &[
    ("router", router::op),
    ("routerBackward", router_backward::op),
    ("sequenceBalance", balance::forward),
    ("sequenceBalanceBackward", balance::backward),
    ("dispatchPlan", dispatch::plan),
    ("expertLoad", dispatch::load),
    ("planCopies", copies::plan),
    ("gatherRows", copies::gather),
    ("combine", combine::op),
    ("mixtureBackward", mixture::backward),
    ("weighRows", mixture::weigh),
    ("updateRouterBias", bias::op),
];

/// Added to sums of affinities: where they all underflow, shares are 0 instead of 0 / 0.
const AFFINITY_EPSILON: f32 = 1e-20;

/// Tokens in one task: about 20 us of work, below which handing it to another thread costs more than it saves.
fn tokens_per_task(nanoseconds_per_token: usize) -> usize {
    (20_000 / nanoseconds_per_token.max(1)).clamp(1, 256)
}
