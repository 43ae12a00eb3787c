//! Process-lifetime identities: small indices into arrays that the packet path can afford.
//!
//! A slot is given out by the control plane and reused only after every worker acknowledged a
//! snapshot without it and no flow or template names it any more.

macro_rules! slot {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u16);

        impl $name {
            /// The slot as an array index.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

slot! {
    /// A service: (VIP, protocol, ports).
    ServiceSlot
}

impl ServiceSlot {
    /// The slot of no service.
    pub(crate) const NONE: Self = Self(u16::MAX);
}

slot! {
    /// A backend of one service (the same host in two services has two slots).
    BackendSlot
}
slot! {
    /// A VRRP instance, or the instance of a service without one: the index into the lease array.
    InstanceSlot
}
slot! {
    /// An interface that frames come from and go to.
    PortId
}
