//! CRC-32C (Castagnoli), which guards the streams against what TCP's checksum misses.

/// The CRC of everything `crc` covers followed by `bytes`. The CRC of nothing is 0.
#[cfg(feature = "std")]
pub(crate) fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

/// The CRC of everything `crc` covers followed by `bytes`. The CRC of nothing is 0.
#[cfg(not(feature = "std"))]
pub(crate) use portable::crc32c_append;

#[cfg(any(test, not(feature = "std")))]
mod portable {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut crc = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };

    /// As above, a byte at a time.
    pub(crate) fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!crc, |crc, byte| (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn check_value_of_rfc_3720() {
        assert_eq!(portable::crc32c_append(0, b"123456789"), 0xe306_9283);
        assert_eq!(portable::crc32c_append(0, &[0; 32]), 0x8a91_36aa);
    }

    proptest! {
        #[test]
        fn portable_and_fast_agree(head: Vec<u8>, tail: Vec<u8>) {
            let expected = crc32c_append(crc32c_append(0, &head), &tail);
            prop_assert_eq!(portable::crc32c_append(portable::crc32c_append(0, &head), &tail), expected);
        }
    }
}
