//! The command line of QEMU.

use std::{fs, num::NonZero, path::Path, thread::available_parallelism};

use super::{
    image::{self, Image},
    spec::{Card, GuestSpec},
};
use crate::{
    error::Result,
    node::{Role, mac_of, node_name},
    process::Process,
    topology::Lab,
};

/// Starts QEMU on the lab's switch, with its sockets in `dir`.
pub(super) fn start(lab: &Lab, spec: &GuestSpec, image: &Image, dir: &Path) -> Result<Process> {
    let machine = Machine::of(spec)?;
    let mut argv = machine.argv;
    let file = |name: &str| dir.join(name).display().to_string();
    let mac = mac_of(Role::Balancer, spec.number).map(|byte| format!("{byte:02x}")).join(":");
    let name = node_name(Role::Balancer, spec.number);
    let (queues, device) = (spec.queues, spec.card.device());
    let several = spec.card == Card::VirtioNet && queues > 1;
    let tap = if several { format!(",queues={queues}") } else { String::new() };
    let mut card = format!("{device},id={CARD},netdev=tap,mac={mac},romfile=");
    if several {
        card += &format!(",mq=on,vectors={}", 2 * queues + 2);
    }
    if !spec.options.is_empty() {
        card += &format!(",{}", spec.options);
    }
    // no_timer_check: on a busy machine the check of an emulated timer fails now and then.
    let append = format!(
        "console=ttyS0 panic=-1 mitigations=off no_timer_check MODULES=af_packet,virtio_pci,{}{}",
        spec.card.driver(),
        if spec.systemd { " SYSTEMD=yes" } else { "" }
    );
    let words = [
        format!("-kernel {}", image.kernel.display()),
        format!("-initrd {}", image.initramfs.display()),
        format!("-smp {}", spec.cpus),
        format!("-m {}", spec.memory_mb),
        format!("-serial file:{}", file("kernel.log")),
        format!("-serial unix:{},server=on,wait=off", file("shell")),
        format!("-qmp unix:{},server=on,wait=off", file("qmp")),
        format!("-netdev tap,id=tap,ifname={name},script=no,downscript=no,vhost=off{tap}"),
        format!("-device {card}"),
    ];
    let words = words.iter().filter_map(|word| word.split_once(' '));
    argv.extend(words.flat_map(|(option, value)| [option.to_owned(), value.to_owned()]));
    argv.extend(["-append".to_owned(), append]);
    // Left from an earlier guest of the same number.
    for name in ["shell", "qmp"] {
        let _ = fs::remove_file(dir.join(name));
    }
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    Process::start(lab.switch(), &format!("QEMU of {name}"), &argv, &dir.join("qemu.log"))
}

/// QEMU and what is the same for all guests.
struct Machine {
    argv: Vec<String>,
}

impl Machine {
    fn of(spec: &GuestSpec) -> Result<Self> {
        let mut argv: Vec<String> = match spec.card.qemu_suite() {
            None => vec!["qemu-system-x86_64".into()],
            Some(suite) => {
                let root = image::fetch(&["qemu", suite], &format!("qemu-{suite}"))?;
                let root = root.display();
                vec![
                    "env".into(),
                    format!("LD_LIBRARY_PATH={root}/usr/lib/x86_64-linux-gnu"),
                    format!("QEMU_MODULE_DIR={root}/usr/lib/x86_64-linux-gnu/qemu"),
                    format!("{root}/usr/bin/qemu-system-x86_64"),
                    "-L".into(),
                    format!("{root}/usr/share/qemu"),
                    "-L".into(),
                    format!("{root}/usr/share/seabios"),
                    "-L".into(),
                    "/usr/share/seabios".into(),
                ]
            }
        };
        // Five levels of page tables only cost time.
        let fixed = "-nodefaults -no-user-config -display none -no-reboot -machine q35 \
                     -cpu max,la57=off";
        // With more emulated CPUs than real ones, one that waits for another spins while that one has
        // no CPU: some boots stall. In turns they go on.
        let real = available_parallelism().map_or(1, NonZero::get);
        let threads = if usize::from(spec.cpus) > real { "single" } else { "multi" };
        argv.extend(["-accel".into(), format!("tcg,thread={threads}")]);
        argv.extend(fixed.split_whitespace().map(str::to_owned));
        Ok(Self { argv })
    }
}

/// QEMU's name of the card.
pub(super) const CARD: &str = "card";
