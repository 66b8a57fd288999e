//! Raw bindings to DPDK 22.11: the functions SliM calls, and `slim_*` shims for those that DPDK defines inline.
//!
//! Nothing here is safe; the `dpdk` crate wraps it. Only the drivers that `build.rs` lists are linked.

#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals)]
#![allow(missing_docs, unnecessary_transmutes)]
#![allow(clippy::all, clippy::undocumented_unsafe_blocks)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
