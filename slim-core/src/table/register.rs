//! A single value as part of the state.

use super::archive;
use super::hash::Digest;
use super::pod::{Pod, mix_layout, name_layout};
use super::state::{AdoptError, ArchiveError, FrozenItem, ItemHeader, StateItem};
use alloc::boxed::Box;
use rkyv::util::AlignedVec;

/// One value that is state: a clock, an allocator's position, a total.
#[derive(Debug, Clone)]
pub struct Register<T> {
    name: &'static str,
    value: T,
    adoption: Adoption,
}

/// How far an adoption has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Adoption {
    None,
    Announced,
    Arrived,
}

impl<T: Pod> Register<T> {
    const LAYOUT: u64 = mix_layout(name_layout("register 1"), T::LAYOUT);
    const HEADER: ItemHeader = ItemHeader { segments: 1, entries: 1, capacity: 1, hash_seed: 0, layout: Self::LAYOUT };

    /// A register that holds `value`.
    pub const fn new(name: &'static str, value: T) -> Self {
        Self { name, value, adoption: Adoption::None }
    }

    /// The value.
    #[inline]
    pub fn get(&self) -> T {
        self.value
    }

    /// Replaces the value.
    #[inline]
    pub fn set(&mut self, value: T) {
        self.value = value;
    }

    /// The value, for a change in place.
    #[inline]
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: Pod> StateItem for Register<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn freeze(&mut self) -> Box<dyn FrozenItem> {
        Box::new(FrozenRegister { name: self.name, value: self.value })
    }

    fn begin_adopt(&mut self, header: &ItemHeader) -> Result<(), AdoptError> {
        header.expect_shape(&Self::HEADER)?;
        self.adoption = Adoption::Announced;
        Ok(())
    }

    fn adopt_segment(&mut self, index: u32, archive: &[u8]) -> Result<(), AdoptError> {
        if self.adoption != Adoption::Announced || index != 0 {
            return Err(AdoptError::Segment(index));
        }
        archive::read::<u8, T>(index, 1, archive, |_, key, value| {
            if key != 0 {
                return Err(AdoptError::Inconsistent(index));
            }
            self.value = value;
            Ok(())
        })?;
        self.adoption = Adoption::Arrived;
        Ok(())
    }

    fn finish_adopt(&mut self) -> Result<(), AdoptError> {
        match core::mem::replace(&mut self.adoption, Adoption::None) {
            Adoption::None => Err(AdoptError::Header("none has arrived")),
            Adoption::Announced => Err(AdoptError::Incomplete { have: 0, want: 1 }),
            Adoption::Arrived => Ok(()),
        }
    }
}

struct FrozenRegister<T> {
    name: &'static str,
    value: T,
}

impl<T: Pod> FrozenItem for FrozenRegister<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn header(&self) -> ItemHeader {
        Register::<T>::HEADER
    }

    fn capacity_bytes(&self) -> u64 {
        size_of::<T>() as u64
    }

    fn archive_segment(&self, index: u32) -> Result<Option<AlignedVec>, ArchiveError> {
        if index == 0 { archive::write(1, core::iter::once((0, 0u8, self.value))) } else { Ok(None) }
    }

    fn digest(&self) -> u128 {
        let mut digest = Digest::default();
        digest.add(&0u8, &self.value);
        digest.finish(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn register_travels() {
        let mut source = Register::new("clock", 7u64);
        let frozen = source.freeze();
        source.set(8);
        let mut destination = Register::new("clock", 0u64);
        destination.begin_adopt(&frozen.header()).unwrap();
        destination.adopt_segment(0, &frozen.archive_segment(0).unwrap().unwrap()).unwrap();
        destination.finish_adopt().unwrap();
        assert_eq!(destination.get(), 7);
        assert_eq!(destination.freeze().digest(), frozen.digest());
        assert_ne!(source.freeze().digest(), frozen.digest());
    }

    #[test]
    fn register_refuses_disorder() {
        let frozen = Register::new("clock", 7u64).freeze();
        let archive = frozen.archive_segment(0).unwrap().unwrap();
        let mut register = Register::new("clock", 0u64);
        assert_eq!(register.adopt_segment(0, &archive), Err(AdoptError::Segment(0)));
        assert!(matches!(register.finish_adopt(), Err(AdoptError::Header(_))));
        register.begin_adopt(&frozen.header()).unwrap();
        assert_eq!(register.adopt_segment(1, &archive), Err(AdoptError::Segment(1)));
        assert_eq!(register.adopt_segment(0, &archive[1..]), Err(AdoptError::Archive(0)));
        assert_eq!(register.finish_adopt(), Err(AdoptError::Incomplete { have: 0, want: 1 }));
        register.begin_adopt(&frozen.header()).unwrap();
        register.adopt_segment(0, &archive).unwrap();
        assert_eq!(register.adopt_segment(0, &archive), Err(AdoptError::Segment(0)));
        let other = Register::new("clock", 7u32).freeze();
        assert!(matches!(register.begin_adopt(&other.header()), Err(AdoptError::Header(_))));
    }
}
