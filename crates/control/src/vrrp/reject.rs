//! Why a received advertisement is not believed (RFC 9568 §7.1, RFC 3768 §7.1).

macro_rules! reject_reasons {
    ($($(#[$doc:meta])* $variant:ident => $name:literal, $help:literal;)*) => {
        /// Why a packet changed nothing. Counter, metric label and documentation come from here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
        #[repr(u8)]
        pub enum Reject {
            $(#[doc = $help] #[error($help)] $variant,)*
        }

        impl Reject {
            /// All reasons, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The metric label.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One sentence for an operator.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }
        }
    };
}

reject_reasons! {
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

impl Reject {
    /// The index of the reason's counter.
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_follow_the_list_and_names_are_unique() {
        for (at, reason) in Reject::ALL.iter().enumerate() {
            assert_eq!(reason.index(), at);
            assert_eq!(Reject::ALL.iter().filter(|r| r.name() == reason.name()).count(), 1);
        }
    }
}
