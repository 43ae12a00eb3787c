//! Packets of numbered flows, and a random order to visit them in.

use std::net::Ipv4Addr;

use dataplane::{FlowKey, Protocol};

/// Length of every frame: the shortest that Ethernet has, without its checksum.
pub const FRAME: usize = 60;

/// TCP flags of a packet.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Flags {
    /// Opens a connection.
    Syn = 0x02,
    /// Everything after that.
    Ack = 0x10,
    /// The same, with numbers ahead of it.
    Data = 0x18,
}

/// A flow's 5-tuple by number. Four flows have one client, as a browser's connections do; flows go
/// round the VIPs.
#[derive(Clone, Copy, Debug)]
pub struct Tuple {
    client: u32,
    port: u16,
    vip: u32,
}

impl Tuple {
    /// Of flow `number`, where there are `vips` VIPs.
    pub const fn new(number: u32, vips: u32) -> Self {
        let port = FIRST_PORT + (number % FLOWS_PER_CLIENT) as u16;
        Self {
            client: FIRST_CLIENT + number / FLOWS_PER_CLIENT,
            port,
            vip: FIRST_VIP + number % vips,
        }
    }

    /// As the flow table has it.
    pub fn key(self) -> FlowKey {
        FlowKey {
            src: Ipv4Addr::from_bits(self.client).into(),
            dst: Ipv4Addr::from_bits(self.vip).into(),
            src_port: self.port,
            dst_port: SERVICE_PORT,
            protocol: Protocol::Tcp,
        }
    }

    /// Writes the flow's packet over a frame of [`FRAME`] bytes. Checksums are left out: the packet
    /// path does not look at them.
    pub fn write(self, flags: Flags, frame: &mut [u8]) {
        frame.copy_from_slice(&TEMPLATE);
        frame[26..30].copy_from_slice(&self.client.to_be_bytes());
        frame[30..34].copy_from_slice(&self.vip.to_be_bytes());
        frame[34..36].copy_from_slice(&self.port.to_be_bytes());
        frame[45] = if matches!(flags, Flags::Data) { 2 } else { 1 };
        frame[47] = flags as u8;
    }
}

/// The address of VIP `number`.
pub const fn vip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST_VIP + number)
}

/// A random order (xorshift64*): neither the prefetcher nor the branch predictor can guess it.
#[derive(Debug)]
pub struct Order(u64);

impl Order {
    /// A fixed one: every run visits flows in the same order.
    pub const fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// A number below `end`.
    pub const fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((bits * end as u64) >> 32) as u32
    }
}

impl Default for Order {
    fn default() -> Self {
        Self::new()
    }
}

/// Flows of which the nth most frequent has a share of 1/n (Zipf's distribution with exponent 1). The
/// frequent ones are anywhere in the tables.
#[derive(Debug)]
pub struct Zipf {
    flows: u32,
    /// Logarithm of the number of flows and one.
    scale: f64,
    order: Order,
}

impl Zipf {
    /// Over so many flows, whose number has no prime factors but two and five.
    pub fn new(flows: u32) -> Self {
        Self { flows, scale: f64::from(flows + 1).ln(), order: Order::new() }
    }

    /// The next packet's flow.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at least one and at most the number of flows"
    )]
    pub fn next_flow(&mut self) -> u32 {
        let random = f64::from(self.order.below(u32::MAX)) / f64::from(u32::MAX);
        // Between n and n + 1 with a probability of ln(n + 1) - ln(n), which is about 1/n.
        let rank = ((random * self.scale).exp() as u64).saturating_sub(1);
        let scattered = rank * u64::from(SCATTER) % u64::from(self.flows);
        u32::try_from(scattered).unwrap_or(0)
    }
}

/// Flows of one client address.
pub const FLOWS_PER_CLIENT: u32 = 4;

/// The port that all services listen on.
pub const SERVICE_PORT: u16 = 80;

/// 100.64.0.0/10 has room for four million clients.
const FIRST_CLIENT: u32 = 0x6440_0000;
/// Odd, and no multiple of five.
const SCATTER: u32 = 618_033_989;
const FIRST_PORT: u16 = 40_000;
const FIRST_VIP: u32 = 0x0a01_0000;

/// Ethernet, IPv4 and TCP headers without options, and the padding that Ethernet wants.
const TEMPLATE: [u8; FRAME] = {
    let mut frame = [0; FRAME];
    let headers = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1, 1, 8, 0, // to the balancer, from the router, IPv4
        0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, // no options, 40 bytes, TCP
        0, 0, 0, 0, 0, 0, 0, 0, // addresses
        0, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0, // ports, numbers, no options
    ];
    let mut at = 0;
    while at < headers.len() {
        frame[at] = headers[at];
        at += 1;
    }
    frame
};

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::Packet;

    #[test]
    fn packets_are_of_their_flow() {
        for (number, vips) in [(0, 1), (7, 1), (999_999, 1000)] {
            let tuple = Tuple::new(number, vips);
            let mut frame = [0; FRAME];
            tuple.write(Flags::Syn, &mut frame);
            let Packet::Tcp(key, tcp) = dataplane::parse(&frame) else { panic!("not TCP") };
            assert_eq!(key, tuple.key());
            assert!(tcp.opens());
        }
    }

    #[test]
    fn the_most_frequent_flow_has_the_share_that_zipf_gives_it() {
        let mut zipf = Zipf::new(1000);
        let mut seen = vec![0_u32; 1000];
        for _ in 0..100_000 {
            seen[zipf.next_flow() as usize] += 1;
        }
        seen.sort_unstable();
        // ln(2) / ln(1001) and ln(3/2) / ln(1001).
        let share = |rank: usize| f64::from(seen[1000 - rank]) / 100_000.0;
        assert!((share(1) - 0.100).abs() < 0.01, "{}", share(1));
        assert!((share(2) - 0.059).abs() < 0.01, "{}", share(2));
    }

    #[test]
    fn the_order_reaches_everything() {
        let mut order = Order::new();
        let mut seen = [false; 100];
        for _ in 0..2000 {
            seen[order.below(100) as usize] = true;
        }
        assert!(seen.iter().all(|seen| *seen));
    }
}
