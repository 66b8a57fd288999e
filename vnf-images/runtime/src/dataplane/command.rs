//! The management thread's end of an lcore.

use dpdk::Waker;
use slim_core::nf::ShardId;
use slim_core::vei::lcore::Command;

/// The management thread's end of an lcore.
pub struct LcoreHandle<F> {
    /// The shard that the lcore owns.
    pub shard: ShardId,
    commands: rtrb::Producer<Command<F>>,
    waker: Option<Waker>,
}

/// More commands than an lcore is ever given at a time were left unanswered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lcore of shard {} does not take commands", .0.0)]
pub struct Unresponsive(pub ShardId);

/// Commands that may wait for an lcore. It looks at least every few milliseconds.
pub const COMMANDS_MAX: usize = 64;

impl<F> LcoreHandle<F> {
    /// The handle of the lcore that reads `commands` and sleeps until `waker` is used, if it sleeps that deeply.
    pub fn new(shard: ShardId, commands: rtrb::Producer<Command<F>>, waker: Option<Waker>) -> Self {
        Self { shard, commands, waker }
    }

    /// Gives the lcore a command; it acts on commands in their order.
    pub fn command(&mut self, command: Command<F>) -> Result<(), Unresponsive> {
        self.commands.push(command).map_err(|_| Unresponsive(self.shard))?;
        if let Some(waker) = &self.waker {
            waker.wake();
        }
        Ok(())
    }
}
