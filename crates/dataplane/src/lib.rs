//! The packet path: a burst of frames in, a verdict for each out, and the tables it reads.
//!
//! Pure: no clock, socket, file, thread or random source; `now` and seeds are passed in. Nothing
//! here allocates per packet, and no bytes of a packet can cause a panic.
#![forbid(unsafe_code)]

mod addr;
mod counters;
mod flow;
mod forward;
mod fragments;
mod group;
mod guard;
mod handshakes;
mod key;
mod limiter;
mod mailbox;
mod packet;
mod pending;
mod persistence;
mod scheduler;
mod slots;
mod snapshot;
mod tick;
mod verdict;

pub use addr::{Addr, Mac};
pub use counters::{
    BackendCounters, Counter, Gauge, MAX_BACKENDS, MAX_SERVICES, ServiceCounters, Totals,
    WorkerCounters,
};
pub use flow::{
    EndedFlow, Flow, FlowHash, FlowId, FlowMemory, FlowReader, FlowState, FlowTable, Found,
    Membership, NewFlow, Origin, Orphan, SeenFlow, TableFull, Timeouts, Transition, Words,
    WrongMemory,
};
pub use forward::{BURST, Because, Burst, Explanation, Forwarder, Question, SharedTables};
pub use fragments::{FirstWent, FragmentTable, Released, WaitingRoom};
pub use group::Group;
pub use guard::{LoopGuard, Sender};
pub use handshakes::{HANDSHAKE_BOUNDS, HandshakeTimes, Handshakes};
pub use key::{FlowKey, FragmentKey, Protocol, ServiceKey};
pub use mailbox::{Mailbox, Message, Parcel};
pub use packet::{
    ANSWER_GROWTH, EthernetSource, MAX_EXTENSIONS, Packet, RESET_LEN, TcpFields, answer,
    ethernet_source, finish_checksum, parse, parse_into, reset, rewrite_macs, source_mac,
    unreachable, write_reset,
};
pub use pending::{Choice, PendingKey, PendingTable};
pub use persistence::{
    Epoch, Joined, PersistencePage, PersistenceStats, PersistenceTable, Template, TemplateEntry,
    TemplateKey, TemplateRef,
};
pub use scheduler::{
    HashInput, HashSeed, Load, MaglevTable, Member, Scheduler, SchedulerKind, flow_hash,
    source_hash,
};
pub use slots::{BackendSlot, InstanceSlot, PortId, ServiceSlot};
pub use snapshot::{
    NextHop, Persistence, Service, Snapshot, Suspicion, UnusableAction, Vip, WorkerLink,
};
pub use tick::Tick;
pub use verdict::{DropReason, Verdict};
