//! Drivers of NICs that few images need.

use std::fmt;

/// A driver that an image has only if it is asked for; each is a feature of the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum NicDriver {
    /// Amazon's Elastic Network Adapter.
    Ena,
    /// Broadcom's NetXtreme-C and -E.
    Bnxt,
    /// NVIDIA's (Mellanox's) ConnectX-4 and later, with a kernel that has a driver for them, too.
    Mlx5,
}

impl NicDriver {
    /// Its name, and that of the feature.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ena => "ena",
            Self::Bnxt => "bnxt",
            Self::Mlx5 => "mlx5",
        }
    }

    /// Whether it works through a driver of the kernel, which the usual one has not: see `kernel-cfg/nics/`.
    pub fn needs_kernel(self) -> bool {
        self == Self::Mlx5
    }
}

impl fmt::Display for NicDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The name of an image of `vnf` with these drivers.
pub fn image_name(vnf: &str, nics: &[NicDriver]) -> String {
    nics.iter().fold(vnf.to_owned(), |name, nic| format!("{name}+{nic}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_with_more_drivers_has_a_folder_of_its_own() {
        assert_eq!(image_name("nat", &[]), "nat");
        assert_eq!(image_name("nat", &[NicDriver::Ena, NicDriver::Bnxt]), "nat+ena+bnxt");
    }
}
