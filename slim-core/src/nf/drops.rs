//! Why packets are dropped.

/// Declares `Drop`, a network function's reasons to drop a packet, each with its counter's name.
///
/// ```
/// slim_core::drop_reasons! {
///     /// The frame is shorter than an Ethernet header.
///     FrameTooShort = "frame_too_short",
///     /// The frame does not hold IPv4.
///     NotIpv4 = "not_ipv4",
/// }
/// assert_eq!(Drop::NAMES, ["frame_too_short", "not_ipv4"]);
/// assert_eq!(slim_core::nf::Verdict::from(Drop::NotIpv4), slim_core::nf::Verdict::Drop(1));
/// ```
#[macro_export]
macro_rules! drop_reasons {
    ($($(#[$attribute:meta])* $variant:ident = $name:literal,)+) => {
        /// A reason to drop a packet.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Drop {
            $($(#[$attribute])* $variant,)+
        }

        impl Drop {
            /// The reasons in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The counters' names in the same order.
            pub const NAMES: &'static [&'static str] = &[$($name),+];
        }

        impl From<Drop> for $crate::nf::Verdict {
            fn from(drop: Drop) -> Self {
                Self::Drop(drop as u16)
            }
        }
    };
}
