//! What keys and values of tables are made of: fixed-size integers, arrays of them, and structs of those.

use core::fmt::Debug;
use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{Failure, Strategy};
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

/// Receives the fields of a [`Pod`] one after the other, for hashing and for storing.
pub trait FieldSink {
    /// Takes one field: the low `bytes` bytes (1 to 8) of `value`, whose other bytes are zero.
    fn put(&mut self, value: u64, bytes: u32);
}

/// Gives the fields of a [`Pod`] back in the order a [`FieldSink`] took them.
pub trait FieldSource {
    /// The next field, of `bytes` bytes (1 to 8).
    fn take(&mut self, bytes: u32) -> u64;
}

/// Plain old data: a fixed number of integers, with the same meaning on every machine.
///
/// Implemented for the unsigned and signed integers and for arrays; the macro [`pod!`](crate::pod) declares a struct
/// of such fields. The bounds say that a `Pod` can be archived, and checked and copied out of an untrusted archive.
pub trait Pod:
    Copy
    + Eq
    + Debug
    + Send
    + Sync
    + 'static
    + Archive<Archived: for<'a> CheckBytes<HighValidator<'a, Failure>> + Deserialize<Self, Strategy<(), Failure>>>
    + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, Failure>>
{
    /// The value whose every field is zero.
    const ZERO: Self;

    /// Bytes of all fields together, without padding.
    const SIZE_BYTES: usize;

    /// Identifies the fields' names, types and order. Both ends of a migration compare it.
    const LAYOUT: u64;

    /// Gives every field to `sink`, in the order of declaration.
    fn write<S: FieldSink>(&self, sink: &mut S);

    /// Rebuilds what [`write`](Self::write) gave.
    fn read<S: FieldSource>(source: &mut S) -> Self;
}

/// Mixes a number into a layout identifier (FNV-1a over its bytes).
#[doc(hidden)]
pub const fn mix_layout(layout: u64, number: u64) -> u64 {
    let bytes = number.to_le_bytes();
    let mut layout = layout;
    let mut i = 0;
    while i < bytes.len() {
        layout = (layout ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    layout
}

/// A layout identifier for a name (FNV-1a).
#[doc(hidden)]
pub const fn name_layout(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let mut layout = 0xcbf2_9ce4_8422_2325;
    let mut i = 0;
    while i < bytes.len() {
        layout = mix_layout(layout, bytes[i] as u64);
        i += 1;
    }
    layout
}

macro_rules! pod_integer {
    ($($integer:ident as $unsigned:ident),*) => {$(
        impl Pod for $integer {
            const ZERO: Self = 0;
            const SIZE_BYTES: usize = size_of::<$integer>();
            const LAYOUT: u64 = name_layout(stringify!($integer));

            #[inline(always)]
            fn write<S: FieldSink>(&self, sink: &mut S) {
                sink.put(*self as $unsigned as u64, size_of::<$integer>() as u32);
            }

            #[inline(always)]
            fn read<S: FieldSource>(source: &mut S) -> Self {
                source.take(size_of::<$integer>() as u32) as $integer
            }
        }
    )*};
}

pod_integer!(u8 as u8, u16 as u16, u32 as u32, u64 as u64, i8 as u8, i16 as u16, i32 as u32, i64 as u64);

impl<T: Pod, const N: usize> Pod for [T; N] {
    const ZERO: Self = [T::ZERO; N];
    const SIZE_BYTES: usize = N * T::SIZE_BYTES;
    const LAYOUT: u64 = mix_layout(mix_layout(name_layout("array"), N as u64), T::LAYOUT);

    #[inline(always)]
    fn write<S: FieldSink>(&self, sink: &mut S) {
        for element in self {
            element.write(sink);
        }
    }

    #[inline(always)]
    fn read<S: FieldSource>(source: &mut S) -> Self {
        core::array::from_fn(|_| T::read(source))
    }
}

/// Declares a struct of integers that can be a table's key or value.
///
/// Every field's type must be a [`Pod`](crate::table::Pod) itself. The struct is `Copy`, comparable and printable;
/// further derives may be added.
///
/// ```
/// slim_core::pod! {
///     /// An interior socket.
///     #[derive(Hash)]
///     pub struct Socket {
///         /// IPv4 address.
///         pub address: u32,
///         /// UDP or TCP port.
///         pub port: u16,
///     }
/// }
/// let table = slim_core::table::SegmentedTable::<Socket, u64>::with_capacity("sockets", 1000, 42);
/// assert!(table.get(&Socket { address: 1, port: 2 }).is_none());
/// ```
#[macro_export]
macro_rules! pod {
    (
        $(#[$attribute:meta])*
        $visibility:vis struct $name:ident {
            $($(#[$field_attribute:meta])* $field_visibility:vis $field:ident: $type:ty),+ $(,)?
        }
    ) => {
        $(#[$attribute])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq,
            $crate::rkyv::Archive, $crate::rkyv::Serialize, $crate::rkyv::Deserialize,
        )]
        #[rkyv(crate = $crate::rkyv)]
        $visibility struct $name {
            $($(#[$field_attribute])* $field_visibility $field: $type,)+
        }

        impl $crate::table::Pod for $name {
            const ZERO: Self = Self { $($field: <$type as $crate::table::Pod>::ZERO,)+ };
            const SIZE_BYTES: usize = 0 $(+ <$type as $crate::table::Pod>::SIZE_BYTES)+;
            const LAYOUT: u64 = {
                let layout = $crate::table::name_layout("struct");
                $(
                    let layout = $crate::table::mix_layout(layout, $crate::table::name_layout(stringify!($field)));
                    let layout = $crate::table::mix_layout(layout, <$type as $crate::table::Pod>::LAYOUT);
                )+
                layout
            };

            #[inline(always)]
            fn write<S: $crate::table::FieldSink>(&self, sink: &mut S) {
                $($crate::table::Pod::write(&self.$field, sink);)+
            }

            #[inline(always)]
            fn read<S: $crate::table::FieldSource>(source: &mut S) -> Self {
                Self { $($field: <$type as $crate::table::Pod>::read(source),)+ }
            }
        }
    };
}
