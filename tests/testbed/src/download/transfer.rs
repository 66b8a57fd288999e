//! Both ends of a download: a server of incompressible bytes, and a meter that finds stalls in what arrives.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const CHUNK_BYTES: usize = 16 * 1024;

/// What passed, seen from one end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// Bytes of content.
    pub bytes: u64,
    /// SHA-256 of the content, in hexadecimal.
    pub sha256: String,
    /// From the first byte to the last.
    pub duration_ms: u64,
    /// The longest time between two reads that brought something.
    pub longest_stall_ms: u64,
}

/// Serves one HTTP download of `duration` at about `rate_bps` bits per second and returns what was sent.
///
/// The answer is HTTP/1.0 without a length, so any client takes what comes until the connection closes.
///
/// # Errors
/// Fails when the connection breaks before the end.
pub fn serve_one(listener: &TcpListener, duration: Duration, rate_bps: u64) -> Result<Transfer> {
    let (mut stream, _) = listener.accept().context("cannot accept")?;
    read_request(&stream)?;
    stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n")?;

    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut chunk = [0; CHUNK_BYTES];
    let mut hash = Sha256::new();
    let mut bytes = 0;
    let mut longest_stall = Duration::ZERO;
    let start = Instant::now();
    while start.elapsed() < duration {
        noise.fill(&mut chunk);
        let write = Instant::now();
        stream.write_all(&chunk).context("the connection broke before the end")?;
        longest_stall = longest_stall.max(write.elapsed());
        hash.update(chunk);
        bytes += CHUNK_BYTES as u64;
        let due = Duration::from_nanos(bytes * 8 * 1_000_000_000 / rate_bps.max(1));
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok(transfer(bytes, hash, start.elapsed(), longest_stall))
}

/// Reads `input` to its end, looking at when each part arrives.
pub fn measure(mut input: impl Read) -> Result<Transfer> {
    let mut chunk = [0; CHUNK_BYTES];
    let mut hash = Sha256::new();
    let mut bytes = 0;
    let mut longest_stall = Duration::ZERO;
    let mut start = None;
    let mut last = Instant::now();
    loop {
        let count = input.read(&mut chunk).context("cannot read the download")?;
        if count == 0 {
            break;
        }
        let now = Instant::now();
        if start.is_some() {
            longest_stall = longest_stall.max(now - last);
        }
        start.get_or_insert(now);
        last = now;
        hash.update(&chunk[..count]);
        bytes += count as u64;
    }
    let duration = start.map_or(Duration::ZERO, |start| last - start);
    Ok(transfer(bytes, hash, duration, longest_stall))
}

fn transfer(bytes: u64, hash: Sha256, duration: Duration, longest_stall: Duration) -> Transfer {
    Transfer {
        bytes,
        sha256: hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
        duration_ms: duration.as_millis() as u64,
        longest_stall_ms: longest_stall.as_millis() as u64,
    }
}

/// Reads an HTTP request up to its empty line; what it asks for does not matter.
fn read_request(stream: &TcpStream) -> Result<()> {
    const REQUEST_BYTES_MAX: u64 = 64 * 1024;
    let mut reader = BufReader::new(stream.take(REQUEST_BYTES_MAX));
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line.trim_end().is_empty() {
            return Ok(());
        }
    }
}

/// xorshift64*: fast, incompressible, reproducible.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let value = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            word.copy_from_slice(&value[..word.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_see_the_same_bytes() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("has an address");
        let server = std::thread::spawn(move || serve_one(&listener, Duration::from_millis(300), 80_000_000));
        let mut client = TcpStream::connect(address).expect("connects");
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("asks");
        let mut reader = BufReader::new(client);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).expect("has a header");
        }
        let received = measure(reader).expect("measures");
        let sent = server.join().expect("does not panic").expect("serves");
        assert!(sent.bytes > 0);
        assert_eq!((received.bytes, received.sha256), (sent.bytes, sent.sha256));
    }

    #[test]
    fn a_stall_is_found() {
        struct Slow(u8);
        impl Read for Slow {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                self.0 += 1;
                match self.0 {
                    1 => Ok(buffer.len().min(10)),
                    2 => {
                        std::thread::sleep(Duration::from_millis(50));
                        Ok(buffer.len().min(10))
                    }
                    _ => Ok(0),
                }
            }
        }
        assert!(measure(Slow(0)).expect("measures").longest_stall_ms >= 50);
    }
}
