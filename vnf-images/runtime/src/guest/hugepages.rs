//! Hugepages of 2 MB, taken at boot while memory is still in one piece.

use super::Error;

const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// Makes sure that at least `memory_mb` of hugepages are free.
pub fn reserve(memory_mb: u32) -> Result<(), Error> {
    let want = memory_mb.div_ceil(2);
    let have = free()?;
    if have >= want {
        return Ok(());
    }
    let total = number("nr_hugepages")?;
    super::write(format!("{POOL}/nr_hugepages"), &(total + want - have).to_string())?;
    let have = free()?;
    if have < want { Err(Error::Hugepages { have, want }) } else { Ok(()) }
}

fn free() -> Result<u32, Error> {
    number("free_hugepages")
}

fn number(file: &str) -> Result<u32, Error> {
    Ok(super::read(format!("{POOL}/{file}"))?.trim().parse().unwrap_or(0))
}
