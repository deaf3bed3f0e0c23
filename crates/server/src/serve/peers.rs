//! How many connections each address holds, so that one of them cannot take all there are.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

/// The connections that are open, by address. It has no entry for an address without any.
pub(super) struct Peers {
    open: Mutex<HashMap<IpAddr, usize>>,
    most: usize,
    proxies: Vec<IpNet>,
}

/// One open connection; it counts until this is dropped.
pub(super) struct Seat {
    peers: Arc<Peers>,
    /// None for a proxy, which speaks for many.
    counted: Option<IpAddr>,
}

impl Peers {
    /// At most `most` for each address but those of `proxies`.
    pub(super) fn new(most: usize, proxies: Vec<IpNet>) -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), most, proxies })
    }

    /// A seat for one more connection of `peer`, if it may have one.
    pub(super) fn seat(self: &Arc<Self>, peer: IpAddr) -> Option<Seat> {
        let peer = peer.to_canonical();
        let counted = (!self.proxies.iter().any(|net| net.contains(&peer))).then(|| holder(peer));
        if let Some(address) = counted {
            let mut open = self.open();
            let count = open.entry(address).or_insert(0);
            if *count >= self.most {
                return None;
            }
            *count += 1;
        }
        Some(Seat { peers: Arc::clone(self), counted })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(address) = self.counted else { return };
        let mut open = self.peers.open();
        if let Some(count) = open.get_mut(&address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&address);
            }
        }
    }
}

/// Whom an address belongs to: an IPv6 host has 64 bits of addresses to itself.
fn holder(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_so_many_seats_and_gets_them_back() {
        let peers = Peers::new(2, vec!["10.0.0.0/8".parse().unwrap()]);
        let first = peers.seat(address("192.0.2.1")).unwrap();
        let _second = peers.seat(address("::ffff:192.0.2.1")).unwrap();
        assert!(peers.seat(address("192.0.2.1")).is_none());
        assert!(peers.seat(address("192.0.2.2")).is_some(), "another address has its own");
        drop(first);
        assert!(peers.seat(address("192.0.2.1")).is_some());
        let proxied: Vec<_> = (0..5).filter_map(|_| peers.seat(address("10.1.2.3"))).collect();
        assert_eq!(proxied.len(), 5, "a proxy speaks for many");
    }

    #[test]
    fn an_ipv6_network_is_one_holder_and_nothing_stays_behind() {
        let peers = Peers::new(1, Vec::new());
        let seat = peers.seat(address("2001:db8::1")).unwrap();
        assert!(peers.seat(address("2001:db8::ffff:2")).is_none());
        assert!(peers.seat(address("2001:db8:0:1::1")).is_some());
        drop(seat);
        assert!(peers.open().is_empty());
    }
}
