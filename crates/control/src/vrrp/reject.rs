//! Why a received advertisement is not believed (RFC 9568 §7.1, RFC 3768 §7.1).

label::labels! {
    /// Why a packet changed nothing.
    pub enum Reject {
        Ttl => "ttl", "TTL or hop limit is not 255: the packet may come from beyond the link.";
        Length => "length", "The message is not as long as its fields say.";
        Version => "version", "Another VRRP version than the configured one.";
        Type => "type", "Not an advertisement.";
        Checksum => "checksum", "The checksum is wrong with and without pseudo-header.";
        Auth => "auth", "VRRPv2 authentication: another type or password than the configured one.";
        Vrid => "vrid", "Another virtual router ID, or 0.";
        Count => "count", "No address in the list.";
        Family => "family", "Source or destination is of another address family, or not an address.";
        Interval => "interval", "Interval 0, or (VRRPv2) another interval than the configured one.";
        Source => "source", "The source is not in the list of peers.";
        Addresses => "addresses", "Another list of virtual addresses than the configured one.";
        Own => "own", "The source is this node's own address.";
        Destination => "destination", "Multicast where unicast is configured, or the reverse.";
    }
}
