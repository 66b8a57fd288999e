//! Bringing up interfaces of the kernel's network stack, over rtnetlink.

use super::{Error, read};
use crate::config::Prefix;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;

/// A connection to the kernel's network configuration.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens the connection.
    pub fn open() -> Result<Self, Error> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute);
        let failed = |errno: nix::Error| Error::Network { operation: "open rtnetlink", source: errno.into() };
        Ok(Self { socket: socket.map_err(failed)?, sequence: 0 })
    }

    /// Switches `interface` on.
    pub fn up(&mut self, interface: &str) -> Result<(), Error> {
        self.request("switch an interface on", RTM_NEWLINK, 0, &link_message(index(interface)?))
    }

    /// Gives `interface` the address `prefix`, and its network's route with it.
    pub fn add_address(&mut self, interface: &str, prefix: Prefix) -> Result<(), Error> {
        let message = address_message(index(interface)?, prefix);
        self.request("add an address", RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &message)
    }

    /// Sends everything else through `gateway`.
    pub fn add_default_route(&mut self, interface: &str, gateway: Ipv4Addr) -> Result<(), Error> {
        let message = route_message(index(interface)?, gateway);
        self.request("add the default route", RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &message)
    }

    fn request(&mut self, operation: &'static str, kind: u16, flags: u16, body: &[u8]) -> Result<(), Error> {
        let failed = |source: io::Error| Error::Network { operation, source };
        self.sequence += 1;
        let message = message(kind, NLM_F_REQUEST | NLM_F_ACK | flags, self.sequence, body);
        let fd = self.socket.as_raw_fd();
        send(fd, &message, MsgFlags::empty()).map_err(|errno| failed(errno.into()))?;
        let mut reply = [0; 4096];
        let len = recv(fd, &mut reply, MsgFlags::empty()).map_err(|errno| failed(errno.into()))?;
        acknowledgement(&reply[..len], self.sequence).map_err(failed)
    }
}

fn index(interface: &str) -> Result<u32, Error> {
    Ok(read(format!("/sys/class/net/{interface}/ifindex"))?.trim().parse().unwrap_or(0))
}

fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(16 + body.len());
    message.extend((16 + body.len() as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(body);
    message
}

fn link_message(index: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    body
}

fn address_message(index: u32, prefix: Prefix) -> Vec<u8> {
    let mut body = vec![AF_INET, prefix.len, 0, 0];
    body.extend(index.to_ne_bytes());
    attribute(&mut body, IFA_LOCAL, &prefix.address.octets());
    attribute(&mut body, IFA_ADDRESS, &prefix.address.octets());
    body
}

fn route_message(index: u32, gateway: Ipv4Addr) -> Vec<u8> {
    let mut body = vec![AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0, 0, 0, 0];
    attribute(&mut body, RTA_GATEWAY, &gateway.octets());
    attribute(&mut body, RTA_OIF, &index.to_ne_bytes());
    body
}

/// Appends an attribute whose value's length is a multiple of 4, so that no padding is needed.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8; 4]) {
    body.extend(8u16.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

/// The kernel's answer to the request numbered `sequence`.
fn acknowledgement(reply: &[u8], sequence: u32) -> io::Result<()> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed rtnetlink reply");
    let half = |at: usize| Some(u16::from_ne_bytes(reply.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_ne_bytes(reply.get(at..at + 4)?.try_into().ok()?));
    if half(4) != Some(NLMSG_ERROR) || word(8) != Some(sequence) {
        return Err(malformed());
    }
    match word(16).ok_or_else(malformed)? as i32 {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno.wrapping_neg())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_accepts_what_is_there_already_and_refuses_nonsense() {
        // Reads and re-applies the state of the loopback interface: changes nothing, needs a kernel.
        let mut netlink = Netlink::open().unwrap();
        let result = netlink.up("lo");
        let flags = std::fs::read_to_string("/sys/class/net/lo/flags").unwrap();
        let was_up = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap() & IFF_UP != 0;
        match result {
            Ok(()) => assert!(was_up),
            // Without privileges the kernel says so, in its acknowledgement.
            Err(Error::Network { source, .. }) => assert_eq!(source.kind(), io::ErrorKind::PermissionDenied),
            Err(error) => panic!("{error}"),
        }
        assert!(netlink.up("no-such-interface").is_err());
        let gateway = Ipv4Addr::new(192, 0, 2, 1);
        let refused = netlink.request("add a route", RTM_NEWROUTE, NLM_F_CREATE, &route_message(u32::MAX, gateway));
        assert!(refused.is_err(), "a route through an interface that does not exist");
    }

    #[test]
    fn address_message_has_the_layout_of_rtnetlink() {
        let prefix = Prefix { address: Ipv4Addr::new(10, 3, 0, 11), len: 24 };
        let local = [8u8, 0, 2, 0, 10, 3, 0, 11];
        let address = [8u8, 0, 1, 0, 10, 3, 0, 11];
        let head = [2u8, 24, 0, 0, 3, 0, 0, 0];
        if cfg!(target_endian = "little") {
            assert_eq!(address_message(3, prefix), [&head[..], &local, &address].concat());
        }
    }

    #[test]
    fn truncated_or_foreign_replies_are_errors() {
        let mut good = message(NLMSG_ERROR, 0, 7, &0i32.to_ne_bytes());
        assert!(acknowledgement(&good, 7).is_ok());
        assert!(acknowledgement(&good, 8).is_err());
        good[16..].copy_from_slice(&(-17i32).to_ne_bytes());
        assert_eq!(acknowledgement(&good, 7).unwrap_err().raw_os_error(), Some(17));
        for len in 0..good.len() {
            assert!(acknowledgement(&good[..len], 7).is_err());
        }
    }
}
