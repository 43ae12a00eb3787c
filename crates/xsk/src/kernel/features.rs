//! Offloads of an interface, by the kernel's names for them (`rx-vlan-hw-parse`), and its driver:
//! what `ethtool -k`, `-K` and `-i` do, by the same ioctls.
#![expect(unsafe_code, reason = "ioctls whose answers have lengths that only the caller knows")]

use rustix::io::Errno;

use super::interface::InterfaceView;

/// The offloads of an interface as they were when they were read.
#[derive(Clone, Debug)]
pub struct Features {
    names: Vec<String>,
    blocks: Vec<Block>,
}

/// One offload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Whether it is on.
    pub active: bool,
    /// Whether the driver does not let it be changed.
    pub fixed: bool,
}

/// 32 offloads.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    available: u32,
    active: u32,
    never_changed: u32,
}

impl Features {
    /// Reads the offloads of an interface of the calling thread's network namespace.
    ///
    /// # Errors
    /// `ENODEV` if there is no such interface; else what socket(2) and ioctl(2) report.
    pub fn read(interface: &str) -> Result<Self, Errno> {
        let view = InterfaceView::new(interface)?;
        let count = count(&view)?;
        Ok(Self { names: names(&view, count)?, blocks: blocks(&view, count.div_ceil(32))? })
    }

    /// An offload by its name; `None` if this kernel has none of this name.
    pub fn get(&self, name: &str) -> Option<Feature> {
        let (block, mask) = self.bit(name)?;
        let Block { available, active, never_changed } = *self.blocks.get(block)?;
        Some(Feature {
            active: active & mask != 0,
            fixed: available & mask == 0 || never_changed & mask != 0,
        })
    }

    /// Asks for offloads to be on or off, all at once. What the driver made of it, and of offloads
    /// that hang together with these, is to be [read](Self::read) again.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_ADMIN; what the driver answers.
    pub fn switch(&self, interface: &str, wanted: &[(&str, bool)]) -> Result<(), Errno> {
        let mut request = vec![ETHTOOL_SFEATURES, words(self.blocks.len())];
        request.resize(2 + 2 * self.blocks.len(), 0);
        for (name, on) in wanted {
            let Some((block, mask)) = self.bit(name) else { continue };
            request[2 + 2 * block] |= mask;
            if *on {
                request[3 + 2 * block] |= mask;
            }
        }
        // SAFETY: the kernel writes nothing; it reads as many blocks as the second word says.
        unsafe { InterfaceView::new(interface)?.ethtool(&mut request) }
    }

    /// The block that an offload is in, and its bit there.
    fn bit(&self, name: &str) -> Option<(usize, u32)> {
        let index = self.names.iter().position(|known| known == name)?;
        Some((index / 32, 1 << (index % 32)))
    }
}

/// The name of the interface's driver (`virtio_net`), if it tells.
pub fn driver(interface: &str) -> Option<String> {
    let mut request = vec![0; DRVINFO_SIZE / 4];
    request[0] = ETHTOOL_GDRVINFO;
    let view = InterfaceView::new(interface).ok()?;
    // SAFETY: the answer is a `struct ethtool_drvinfo`, which is as long as the request.
    unsafe { view.ethtool(&mut request) }.ok()?;
    Some(text(&request[1..=STRING / 4])).filter(|name| !name.is_empty())
}

/// How many offloads this kernel knows.
fn count(view: &InterfaceView) -> Result<usize, Errno> {
    // Command, padding, a 64-bit mask of the sets asked for, and the length of that one.
    let mask = (1_u64 << ETH_SS_FEATURES).to_ne_bytes();
    let half = |at: usize| u32::from_ne_bytes([mask[at], mask[at + 1], mask[at + 2], mask[at + 3]]);
    let mut request = [ETHTOOL_GSSET_INFO, 0, half(0), half(4), 0];
    // SAFETY: the answer is a `struct ethtool_sset_info` with one length, for one set is asked for.
    unsafe { view.ethtool(&mut request) }?;
    usize::try_from(request[4]).map_err(|_| Errno::RANGE)
}

fn names(view: &InterfaceView, count: usize) -> Result<Vec<String>, Errno> {
    let mut request = vec![ETHTOOL_GSTRINGS, ETH_SS_FEATURES, words(count)];
    request.resize(3 + count * STRING / 4, 0);
    // SAFETY: the kernel writes the set's strings behind three words, and `count`, which it said
    // itself and is the same for all interfaces and times, is how many there are.
    unsafe { view.ethtool(&mut request) }?;
    Ok(request[3..].chunks(STRING / 4).map(text).collect())
}

fn blocks(view: &InterfaceView, count: usize) -> Result<Vec<Block>, Errno> {
    let mut request = vec![ETHTOOL_GFEATURES, words(count)];
    request.resize(2 + 4 * count, 0);
    // SAFETY: the kernel writes at most as many blocks as the second word says.
    unsafe { view.ethtool(&mut request) }?;
    let block =
        |words: &[u32]| Block { available: words[0], active: words[2], never_changed: words[3] };
    Ok(request[2..].chunks_exact(4).map(block).collect())
}

/// A C string in an array of words.
fn text(words: &[u32]) -> String {
    let bytes = words.iter().flat_map(|word| word.to_ne_bytes());
    bytes.take_while(|byte| *byte != 0).map(char::from).collect()
}

/// The kernel knows some sixty offloads.
fn words(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// `ETH_GSTRING_LEN`, bytes.
const STRING: usize = 32;
/// `sizeof(struct ethtool_drvinfo)`, whose second member is the driver's name.
const DRVINFO_SIZE: usize = 196;
const ETH_SS_FEATURES: u32 = 4;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_offloads_that_are_fixed_and_others() {
        let features = Features::read("lo").expect("the loopback is there");
        let fixed_on = Feature { active: true, fixed: true };
        assert_eq!(features.get("loopback"), Some(fixed_on));
        assert_eq!(features.get("rx-gro").map(|feature| feature.fixed), Some(false));
        assert_eq!(features.get("no-such-offload"), None);
        assert_eq!(Features::read("no-such-if").err(), Some(Errno::NODEV));
        assert_eq!(driver("no-such-if"), None);
    }
}
