//! Requirement: on Debian 12's kernel, in a guest, the product starts and forwards downloads, uploads and
//! large datagrams, over IPv4 and IPv6, with the client's offloads on and off.

use anyhow::Result;
use lab::{Guest, GuestSpec, Kernel, Lab};
use tests::guest::{Servers, config, forwards};

#[test]
fn guest_kernel_6_1() -> Result<()> {
    let lab = Lab::builder().balancers(0).backends(2).build()?;
    let _servers = Servers::start(&lab)?;
    let guest = Guest::boot(&lab, &GuestSpec::new(Kernel::V6_1))?;
    guest.start_pointsman(&config(&lab, ""))?;
    forwards(&lab)
}
