//! The reference kernel, Debian 12's, in a guest: the product starts there and forwards.

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
