//! Two instances as two processes, migrated under traffic and under attack, over real vhost-user ports and TCP.
//!
//! This process is what surrounds them: switch, load generator, recorder and controller in one, single-threaded. The
//! instances run the example `numberer`, whose every frame shows whether one before it was lost, doubled or reordered.
//! No privileges and no hugepages are needed.

mod control;
mod fabric;
mod hostile;
mod instance;
mod peer;
mod refusals;
mod rollback;
mod success;
mod trust;
mod world;
