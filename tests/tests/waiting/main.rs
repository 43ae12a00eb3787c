//! Tests that spend their time waiting: nothing they measure is so short that other tests on the
//! same machine could spoil it. `make test` runs some of them at a time. Needs root.

mod alerts;
mod announcements;
mod closed_ports;
mod explain;
mod forged_resets;
mod fragments;
mod health_flap;
mod health_frozen;
mod health_kinds;
mod health_shared;
#[path = "../vrrp/keepalived.rs"]
mod keepalived;
mod listing;
mod metrics_keep_alive;
mod multicast_snooping;
mod network_faults;
mod one_segment;
mod persistence_group;
mod persistence_timeout;
mod program_lifetime;
mod programs;
mod seeing;
mod systemd;
#[path = "../vrrp/mod.rs"]
mod vrrp;
mod vrrp_discarded;
mod vrrp_guard;
mod vrrp_keepalived;
mod vrrp_suspended;
mod vrrp_track;
