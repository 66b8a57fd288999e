//! A snapshot on its way: from one thread to another through memory, or to another process through a connection.

use super::workload;
use crate::clock;
use anyhow::{Context, Result, anyhow, ensure};
use slim_core::snapshot::{SnapshotReader, SnapshotWriter};
use slim_core::vei::lcore::Frozen;
use slim_nat::{Config, Nat};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The most bytes passed on at a time.
const PIECE: usize = 256 << 10;

/// Pieces that may be on their way.
const PIECES: usize = 8;

/// What the other process says: it is ready; it has adopted everything.
const READY: u8 = 1;
const ADOPTED: u8 = 2;

/// The argument that makes this program the other process: an address to connect to, a number of sessions, a CPU.
pub const ADOPT: &str = "adopt";

/// Writes a snapshot piece by piece.
fn write(items: Frozen, mut piece: impl FnMut(&mut Vec<u8>) -> Result<()>) -> Result<()> {
    let mut writer = SnapshotWriter::new(items, 0);
    let mut buffer = Vec::with_capacity(2 * PIECE);
    while writer.write_next(&mut buffer)? {
        if buffer.len() >= PIECE {
            piece(&mut buffer)?;
        }
    }
    piece(&mut buffer)
}

/// Writes a snapshot on one CPU and adopts it on another at the same time.
pub fn through_memory(items: Frozen, config: &Config, [from, to]: [usize; 2]) -> Result<Box<Nat>> {
    std::thread::scope(|scope| {
        let (give, take) = mpsc::sync_channel::<Vec<u8>>(PIECES);
        let (give_back, take_back) = mpsc::channel::<Vec<u8>>();
        let sender = scope.spawn(move || -> Result<()> {
            clock::pin(from);
            write(items, |buffer| {
                let mut next = take_back.try_recv().unwrap_or_else(|_| Vec::with_capacity(2 * PIECE));
                next.clear();
                give.send(std::mem::replace(buffer, next)).map_err(|_| anyhow!("the receiver has ended"))
            })
        });
        let receiver = scope.spawn(move || -> Result<Box<Nat>> {
            clock::pin(to);
            let mut nat = workload::empty(config)?;
            let mut reader = SnapshotReader::new();
            for piece in take {
                reader.receive(&piece, &mut *nat)?;
                // The sender may have ended.
                let _ = give_back.send(piece);
            }
            reader.finish()?;
            Ok(nat)
        });
        sender.join().map_err(|_| anyhow!("the sender panicked"))??;
        receiver.join().map_err(|_| anyhow!("the receiver panicked"))?
    })
}

/// Another process that adopts one snapshot.
pub struct Adopter {
    child: Child,
    stream: TcpStream,
}

impl Adopter {
    /// Starts it on a CPU, for so many sessions, and waits until it is ready.
    pub fn start(sessions: usize, cpu: usize) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?.to_string();
        let mut child = Command::new(std::env::current_exe()?)
            .args([ADOPT, &address, &sessions.to_string(), &cpu.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start this program once more")?;
        listener.set_nonblocking(true)?;
        let mut stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    ensure!(child.try_wait()?.is_none(), "the adopting process has ended");
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error.into()),
            }
        };
        stream.set_nonblocking(false)?;
        expect(&mut stream, READY)?;
        Ok(Self { child, stream })
    }

    /// Sends it a snapshot and waits until it has adopted it.
    pub fn send(mut self, items: Frozen) -> Result<()> {
        let stream = &mut self.stream;
        write(items, |buffer| {
            stream.write_all(buffer)?;
            buffer.clear();
            Ok(())
        })?;
        expect(stream, ADOPTED)
    }
}

impl Drop for Adopter {
    fn drop(&mut self) {
        // It ends by itself when the connection does; nothing is lost with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn expect(stream: &mut TcpStream, what: u8) -> Result<()> {
    let mut said = [0];
    stream.read_exact(&mut said).context("the adopting process has failed")?;
    ensure!(said == [what], "the adopting process said {said:?}");
    Ok(())
}

/// The other process.
pub fn adopt(address: SocketAddr, sessions: usize, cpu: usize) -> Result<()> {
    clock::pin(cpu);
    let config = workload::config(sessions, workload::addresses_for(sessions))?;
    let mut stream = TcpStream::connect(address)?;
    let mut nat = workload::empty(&config)?;
    let mut reader = SnapshotReader::new();
    let mut buffer = vec![0; PIECE];
    stream.write_all(&[READY])?;
    while !reader.is_complete() {
        let count = stream.read(&mut buffer)?;
        ensure!(count > 0, "the connection was closed");
        reader.receive(buffer.get(..count).unwrap_or_default(), &mut *nat)?;
    }
    Ok(stream.write_all(&[ADOPTED])?)
}
