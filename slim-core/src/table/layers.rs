//! Redirect-on-write: blocks that a snapshot goes on reading while their table writes to copies.
//!
//! ```text
//! top layer      [   ][ 1'][   ][ 3']     the table's own: written in place
//!   below        [ 0 ][ 1 ][ 2 ][ 3 ]     what a snapshot holds: never written while it does
//!     below      …                        what an earlier snapshot still holds
//! ```
//!
//! A freeze puts an empty layer on top, whatever the number of blocks. A block is looked for from the top downwards;
//! before its first write it is copied to the top, or moved there if no snapshot holds the layer any more. Nothing is
//! reference-counted but layers, so that writing to a block of one's own takes no atomic operation.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Blocks of a directory. A layer without blocks consists of one empty reference per directory.
const DIRECTORY_BLOCKS: usize = 64;

/// So many requests for writing pass before the next directory of a layer that no snapshot holds is merged into the top.
const REQUESTS_PER_MERGE: u32 = 32;

/// The most layers below the top. Only snapshots that overlap again and again make so many; then all blocks are copied.
const LAYERS_BELOW_MAX: usize = 8;

/// Where blocks are read from.
pub(super) trait Blocks<B> {
    /// The block with this number, if it has ever been written.
    fn block(&self, index: usize) -> Option<&B>;
}

struct Directory<B>([Option<B>; DIRECTORY_BLOCKS]);

impl<B> Directory<B> {
    fn empty() -> Box<Self> {
        Box::new(Self([const { None }; DIRECTORY_BLOCKS]))
    }
}

/// Some of the blocks, and the layer with the others.
pub(super) struct Layer<B> {
    directories: Vec<Option<Box<Directory<B>>>>,
    below: Option<Arc<Layer<B>>>,
}

impl<B> Layer<B> {
    fn new(directories: usize) -> Self {
        Self { directories: core::iter::repeat_with(|| None).take(directories).collect(), below: None }
    }

    #[inline(always)]
    fn own(&self, index: usize) -> Option<&B> {
        self.directories.get(index / DIRECTORY_BLOCKS)?.as_ref()?.0[index % DIRECTORY_BLOCKS].as_ref()
    }

    fn take(&mut self, index: usize) -> Option<B> {
        self.directories.get_mut(index / DIRECTORY_BLOCKS)?.as_mut()?.0[index % DIRECTORY_BLOCKS].take()
    }

    fn layers_below(&self) -> usize {
        core::iter::successors(self.below.as_deref(), |layer| layer.below.as_deref()).count()
    }

    /// A block of the layers below the next one.
    #[cold]
    fn deep(&self, index: usize) -> Option<&B> {
        let mut layer = self.below.as_deref();
        while let Some(lower) = layer {
            if let Some(block) = lower.own(index) {
                return Some(block);
            }
            layer = lower.below.as_deref();
        }
        None
    }

    /// Takes over what is not there yet of a directory of the layer that was below.
    fn merge(&mut self, number: usize, lower: Option<Box<Directory<B>>>) {
        let (Some(own), Some(lower)) = (self.directories.get_mut(number), lower) else { return };
        match own {
            None => *own = Some(lower),
            Some(own) => {
                for (own, lower) in own.0.iter_mut().zip(lower.0) {
                    if own.is_none() {
                        *own = lower;
                    }
                }
            }
        }
    }
}

impl<B> Blocks<B> for Layer<B> {
    #[inline(always)]
    fn block(&self, index: usize) -> Option<&B> {
        if let Some(block) = self.own(index) {
            return Some(block);
        }
        let below = self.below.as_deref()?;
        if let Some(block) = below.own(index) { Some(block) } else { below.deep(index) }
    }
}

/// A block for writing: moved out of the layer if nobody else holds it, otherwise copied.
fn fetch<B: Clone>(layer: &mut Arc<Layer<B>>, index: usize) -> Option<B> {
    match Arc::get_mut(layer) {
        Some(layer) => layer.take(index).or_else(|| fetch(layer.below.as_mut()?, index)),
        None => layer.block(index).cloned(),
    }
}

/// A fixed number of blocks, each made when it is first written.
pub(super) struct Layered<B> {
    top: Layer<B>,
    requests: u32,
    /// The directory of the layer below that is merged next.
    next_merge: usize,
}

impl<B> Blocks<B> for Layered<B> {
    #[inline(always)]
    fn block(&self, index: usize) -> Option<&B> {
        self.top.block(index)
    }
}

impl<B: Clone> Layered<B> {
    /// So many blocks, none of them written.
    pub(super) fn new(blocks: usize) -> Self {
        Self { top: Layer::new(blocks.div_ceil(DIRECTORY_BLOCKS)), requests: 0, next_merge: 0 }
    }

    /// Forgets every block. Snapshots keep theirs.
    pub(super) fn clear(&mut self) {
        self.top = Layer::new(self.top.directories.len());
        self.next_merge = 0;
    }

    /// A block for writing, if it has ever been written.
    #[inline(always)]
    pub(super) fn block_mut(&mut self, index: usize) -> Option<&mut B> {
        self.prepare(index);
        self.top.directories.get_mut(index / DIRECTORY_BLOCKS)?.as_mut()?.0[index % DIRECTORY_BLOCKS].as_mut()
    }

    /// A block for writing, which `make` makes if it has never been written. `None` if there is none of this number.
    pub(super) fn block_or_insert(&mut self, index: usize, make: impl FnOnce() -> B) -> Option<&mut B> {
        self.prepare(index);
        let directory = self.top.directories.get_mut(index / DIRECTORY_BLOCKS)?.get_or_insert_with(Directory::empty);
        Some(directory.0[index % DIRECTORY_BLOCKS].get_or_insert_with(make))
    }

    /// Puts a block where none is.
    pub(super) fn put(&mut self, index: usize, block: B) {
        self.block_or_insert(index, || block);
    }

    /// Takes a block out of the top layer.
    pub(super) fn take(&mut self, index: usize) -> Option<B> {
        self.top.take(index)
    }

    /// Sees to it that a block that there is below is on top as well, before it is written to.
    #[inline(always)]
    fn prepare(&mut self, index: usize) {
        if self.top.below.is_none() {
            return;
        }
        self.requests = self.requests.wrapping_add(1);
        if self.requests.is_multiple_of(REQUESTS_PER_MERGE) {
            self.merge_some();
        }
        if self.top.own(index).is_none() {
            self.own_block(index);
        }
    }

    /// Moves or copies a block that there is below to the top.
    #[cold]
    fn own_block(&mut self, index: usize) {
        let Some(block) = self.top.below.as_mut().and_then(|below| fetch(below, index)) else { return };
        if let Some(directory) = self.top.directories.get_mut(index / DIRECTORY_BLOCKS) {
            directory.get_or_insert_with(Directory::empty).0[index % DIRECTORY_BLOCKS] = Some(block);
        }
    }

    /// Merges one directory of the layer below into the top, if no snapshot holds that layer any more.
    #[cold]
    fn merge_some(&mut self) {
        let Some(below) = self.top.below.as_mut().and_then(Arc::get_mut) else { return };
        if let Some(directory) = below.directories.get_mut(self.next_merge) {
            let directory = directory.take();
            self.top.merge(self.next_merge, directory);
            self.next_merge += 1;
            return;
        }
        self.top.below = below.below.take();
        self.next_merge = 0;
    }

    /// Merges every layer that no snapshot holds any more into the top.
    fn merge_all(&mut self) {
        while let Some(below) = self.top.below.take() {
            match Arc::try_unwrap(below) {
                Ok(layer) => {
                    for (number, directory) in layer.directories.into_iter().enumerate() {
                        self.top.merge(number, directory);
                    }
                    self.top.below = layer.below;
                    self.next_merge = 0;
                }
                Err(held) => {
                    self.top.below = Some(held);
                    return;
                }
            }
        }
    }

    /// Isolates the present blocks. Dropping what is returned is the unfreeze.
    pub(super) fn freeze(&mut self) -> Arc<Layer<B>> {
        self.merge_all();
        if self.top.layers_below() >= LAYERS_BELOW_MAX {
            (0..self.top.directories.len() * DIRECTORY_BLOCKS).for_each(|index| self.prepare(index));
            self.top.below = None;
        }
        let empty = Layer::new(self.top.directories.len());
        let frozen = Arc::new(core::mem::replace(&mut self.top, empty));
        self.top.below = Some(Arc::clone(&frozen));
        frozen
    }

    /// Whether a snapshot would see a write to this block, if it were made where the block is.
    pub(super) fn is_shared(&self, index: usize) -> bool {
        let held = self.top.below.as_ref().is_some_and(|below| Arc::strong_count(below) > 1);
        held && self.top.own(index).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLOCKS: usize = 200;

    fn content(blocks: &impl Blocks<u32>) -> Vec<Option<u32>> {
        (0..BLOCKS).map(|index| blocks.block(index).copied()).collect()
    }

    #[test]
    fn layers_that_nobody_holds_disappear() {
        let mut blocks = Layered::new(BLOCKS);
        (0..BLOCKS).for_each(|index| blocks.put(index, 0));
        drop(blocks.freeze());
        assert_eq!(blocks.top.layers_below(), 1);
        for request in 0..REQUESTS_PER_MERGE * 8 {
            *blocks.block_mut(7).unwrap() = request;
        }
        assert_eq!(blocks.top.layers_below(), 0);
        assert_eq!(content(&blocks).iter().flatten().count(), BLOCKS);
        for _ in 0..5 {
            drop(blocks.freeze());
        }
        assert_eq!(blocks.top.layers_below(), 1);
    }

    #[test]
    fn overlapping_snapshots_do_not_pile_layers_up() {
        let mut blocks = Layered::new(BLOCKS);
        let mut last = None;
        for round in 0..5 * LAYERS_BELOW_MAX as u32 {
            blocks.put(round as usize, round);
            *blocks.block_or_insert(BLOCKS - 1, || 0).unwrap() = round;
            last = Some((blocks.freeze(), content(&blocks)));
            assert!(blocks.top.layers_below() <= LAYERS_BELOW_MAX);
        }
        let (frozen, then) = last.unwrap();
        assert_eq!((content(&*frozen), content(&blocks)), (then.clone(), then));
    }

    proptest! {
        /// Any number of snapshots, dropped in any order, see what was there when they were made.
        #[test]
        fn snapshots_see_what_they_froze(
            steps in prop::collection::vec((0u8..8, 0usize..BLOCKS, any::<u32>()), 0..600)
        ) {
            let mut blocks = Layered::new(BLOCKS);
            let mut model = alloc::vec![None; BLOCKS];
            let mut snapshots = Vec::new();
            for (step, index, value) in steps {
                match step {
                    0 if snapshots.len() < 4 => snapshots.push((blocks.freeze(), model.clone())),
                    1 if !snapshots.is_empty() => drop(snapshots.swap_remove(index % snapshots.len())),
                    2..5 => {
                        *blocks.block_or_insert(index, || 0).unwrap() = value;
                        model[index] = Some(value);
                    }
                    _ => {
                        if let Some(block) = blocks.block_mut(index) {
                            *block = value;
                        }
                        model[index] = model[index].map(|_| value);
                    }
                }
                prop_assert!(blocks.top.layers_below() <= LAYERS_BELOW_MAX);
            }
            prop_assert_eq!(content(&blocks), model);
            for (snapshot, then) in snapshots {
                prop_assert_eq!(content(&*snapshot), then);
            }
        }
    }
}
