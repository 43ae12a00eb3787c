//! `[[interface]]`.

use control::{Interface, TaggedFrames, XdpMode, ZeroCopy};

use crate::section::Section;
use crate::source::WithSpan;
use crate::value::{self, Checked, Value};

/// An interface as far as it could be read.
#[derive(Debug)]
pub(crate) struct RawInterface {
    pub(crate) name: Option<WithSpan<String>>,
    mode: Option<XdpMode>,
    zero_copy: Option<ZeroCopy>,
    queues: Option<Option<Vec<u32>>>,
    tagged_frames: Option<TaggedFrames>,
}

impl RawInterface {
    pub(crate) fn read(section: &mut Section<'_>) -> Self {
        Self {
            name: section.required("name", "name = \"eth0\"", name),
            mode: section.or("mode", XdpMode::Auto, value::choice(MODES)),
            zero_copy: section.or("zero_copy", ZeroCopy::Auto, value::choice(ZERO_COPY)),
            queues: section.or("queues", None, value::numbers_or("all", QUEUE_MAX)),
            tagged_frames: section.or("tagged_frames", TaggedFrames::Keep, value::choice(TAGGED)),
        }
    }

    pub(crate) fn build(self) -> Option<Interface> {
        Some(Interface {
            name: self.name?.value,
            mode: self.mode?,
            zero_copy: self.zero_copy?,
            queues: self.queues?,
            tagged_frames: self.tagged_frames?,
        })
    }
}

/// What Linux takes for an interface name (`dev_valid_name`).
pub(crate) fn name(value: &Value<'_>) -> Checked<String> {
    let name = value::name(value)?;
    let label = match name.as_str() {
        "." | ".." => "a directory's name".to_owned(),
        _ if name.len() > 15 => format!("{} bytes, Linux allows 15", name.len()),
        _ => match name.chars().find(|c| ['/', ':'].contains(c) || c.is_whitespace()) {
            Some(character) => format!("contains `{character}`"),
            None => return Ok(name),
        },
    };
    let error = value.error(format!("not an interface name: `{name}`")).with_label(label);
    Err(vec![error.with_help("write a name that `ip link` shows, such as `eth0`")])
}

const MODES: &[(&str, XdpMode)] =
    &[("auto", XdpMode::Auto), ("native", XdpMode::Native), ("generic", XdpMode::Generic)];

const ZERO_COPY: &[(&str, ZeroCopy)] =
    &[("auto", ZeroCopy::Auto), ("on", ZeroCopy::On), ("off", ZeroCopy::Off)];

const TAGGED: &[(&str, TaggedFrames)] =
    &[("keep", TaggedFrames::Keep), ("none", TaggedFrames::None)];

/// Linux allows a device 4,096 queues.
const QUEUE_MAX: u32 = 4095;
