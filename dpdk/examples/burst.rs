//! Starts the EAL, receives one burst from a device, sends it back and prints the counters.
//!
//! Small enough to show that a build links, also fully statically:
//!
//! ```text
//! RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" \
//!     cargo run -p dpdk --example burst --target x86_64-unknown-linux-gnu [net_null0,size=512]
//! ```

use dpdk::{Eal, Error, Mempool, PortConfig, process_arguments};
use std::time::Instant;

fn main() -> Result<(), Error> {
    let device = std::env::args().nth(1).unwrap_or_else(|| "net_null0,size=512".into());
    let begun = Instant::now();
    let eal = Eal::init(process_arguments(64))?;
    let started_ms = begun.elapsed().as_millis();
    let pool = Mempool::new(&eal, "packets", 4096)?;
    let mut port = eal.attach(&device)?.start(&PortConfig::default(), &pool)?;

    let mut packets = heapless::Vec::<_, 32>::new();
    let received = port.rx[0].burst(&mut packets);
    let sent = port.tx[0].burst(&mut packets);
    println!("EAL up in {started_ms} ms, time stamp counter at {} MHz", dpdk::hz(&eal) / 1_000_000);
    println!("received {received}, sent {sent}: {:?}", port.port.stats()?);
    Ok(())
}
