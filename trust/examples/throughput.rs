//! What encryption costs: 20 MiB over loopback, with and without TLS, side by side in one run.
//!
//! `cargo run --release -p slim-trust --features issue --example throughput`

use slim_core::protocol::Name;
use slim_trust::{Authority, Channel, Expected, Identity, Keyring, Role, Security};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const BYTES: usize = 20 << 20;
const PIECE: usize = 16 << 10;
const ROUNDS: usize = 9;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn pair(security: &Security) -> Result<(Channel, Channel), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let deadline = Instant::now() + Duration::from_secs(30);
    let any = Expected::any(Role::Instance);
    std::thread::scope(|scope| {
        let accepting = scope.spawn(|| {
            let (tcp, _) = listener.accept()?;
            Ok::<_, Failure>(slim_trust::accept(tcp, security, &any, deadline, b"")?)
        });
        let tcp = TcpStream::connect(address)?;
        let one = slim_trust::connect(tcp, security, &any, Duration::ZERO, deadline)?;
        let other = accepting.join().map_err(|_| "the other side panicked")??;
        Ok((one, other))
    })
}

fn transfer(security: &Security) -> Result<Duration, Failure> {
    let (mut one, mut other) = pair(security)?;
    let piece: Vec<u8> = (0..PIECE).map(|number| (number * 7 / 3) as u8).collect();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let receiving = scope.spawn(move || {
            let (mut buffer, mut total) = (vec![0; 64 << 10], 0);
            while total < BYTES {
                total += other.read(&mut buffer)?;
            }
            Ok::<_, Failure>(())
        });
        for _ in 0..BYTES / PIECE {
            one.write_all(&piece)?;
        }
        receiving.join().map_err(|_| "the other side panicked")??;
        Ok::<_, Failure>(())
    })?;
    Ok(begun.elapsed())
}

fn main() -> Result<(), Failure> {
    let authority = Authority::new(Name::try_from("bench")?)?;
    let pem = authority.issue(Role::Instance, &Name::try_from("a")?, Duration::from_secs(3600))?;
    let tls = Security::Tls(Keyring::new(Identity::from_pem(&pem)?));
    let (mut plain_times, mut tls_times) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        plain_times.push(transfer(&Security::Plaintext)?);
        tls_times.push(transfer(&tls)?);
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64()
    };
    let (plain, tls) = (median(&mut plain_times), median(&mut tls_times));
    let rate = |seconds: f64| BYTES as f64 / seconds / 1e6;
    println!(
        "20 MiB, median of {ROUNDS}: plaintext {:.0} MB/s, TLS {:.0} MB/s, ratio {:.2}",
        rate(plain),
        rate(tls),
        tls / plain
    );
    Ok(())
}
